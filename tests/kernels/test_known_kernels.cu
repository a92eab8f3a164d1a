// Kernels in the manner of those that many people know, as a user would bring them: test_known_kernels.py counts them.
// With BUG in the environment some of them lack a barrier or a fence.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cstdio>
#include <cstdlib>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <vector>
namespace cg = cooperative_groups;

#define CHECK(call)                                                                       \
    do {                                                                                  \
        cudaError_t error = call;                                                         \
        if (error != cudaSuccess) {                                                       \
            fprintf(stderr, "%s:%d %s\n", __FILE__, __LINE__, cudaGetErrorString(error)); \
            exit(EXIT_FAILURE);                                                           \
        }                                                                                 \
    } while (0)

// ---- sums, as in the samples of CUDA --------------------------------------------------------------------------------
template <class T> struct SharedMemory {
    __device__ inline operator T*() {
        extern __shared__ int bytes[];
        return (T*)bytes;
    }
};
template <class T> __global__ void interleaved(const T* x, T* sums, unsigned n) {
    cg::thread_block block = cg::this_thread_block();
    T* s = SharedMemory<T>();
    unsigned t = threadIdx.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    s[t] = i < n ? x[i] : 0;
    cg::sync(block);
    for (unsigned step = 1; step < blockDim.x; step *= 2) {
        if (t % (2 * step) == 0) s[t] += s[t + step];
        cg::sync(block);
    }
    if (t == 0) sums[blockIdx.x] = s[0];
}
template <class T, unsigned SIZE> __global__ void by_shuffles(const T* __restrict__ x, T* sums, unsigned n) {
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<32> tile = cg::tiled_partition<32>(block);
    __shared__ T part[SIZE / 32];
    T sum = 0;
    for (unsigned i = blockIdx.x * SIZE + block.thread_rank(); i < n; i += SIZE * gridDim.x) sum += x[i];
    for (int offset = tile.size() / 2; offset > 0; offset /= 2) sum += tile.shfl_down(sum, offset);
    if (tile.thread_rank() == 0) part[tile.meta_group_rank()] = sum;
    block.sync();
    if (block.thread_rank() >= SIZE / 32) return;
    sum = cg::reduce(cg::tiled_partition<SIZE / 32>(block), part[block.thread_rank()], cg::plus<T>());
    if (block.thread_rank() == 0) sums[blockIdx.x] = sum;
}
__device__ unsigned tickets = 0;
template <bool bug> __global__ void single_pass(const float* x, volatile float* sums, unsigned n) {
    extern __shared__ float s[];
    __shared__ bool last;
    unsigned t = threadIdx.x;
    s[t] = x[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half; half >>= 1) {
        if (t < half) s[t] += s[t + half];
        __syncthreads();
    }
    if (t == 0) {
        sums[blockIdx.x] = s[0];    // single_pass: one
        if (!bug) __threadfence();
        last = atomicInc(&tickets, gridDim.x) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || t) return;
    if (!bug) __threadfence();
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; b++) sum += sums[b];    // single_pass: other
    sums[0] = sum, tickets = 0;
}

// ---- prefix sums without conflicts of banks, as in GPU Gems 3 -------------------------------------------------------
#define OFFSET(n) ((n) >> 5)
template <bool bug> __global__ void scan(float* y, const float* x, int n) {
    extern __shared__ float temp[];
    int t = threadIdx.x, offset = 1, first = t, second = t + n / 2;
    temp[first + OFFSET(first)] = x[first];
    temp[second + OFFSET(second)] = x[second];
    for (int d = n >> 1; d > 0; d >>= 1) {
        if (!bug) __syncthreads();
        if (t < d) {
            int a = offset * (2 * t + 1) - 1, b = offset * (2 * t + 2) - 1;
            temp[b + OFFSET(b)] += temp[a + OFFSET(a)];    // scan: up
        }
        offset *= 2;
    }
    if (t == 0) temp[n - 1 + OFFSET(n - 1)] = 0;
    for (int d = 1; d < n; d *= 2) {
        offset >>= 1;
        __syncthreads();
        if (t < d) {
            int a = offset * (2 * t + 1) - 1, b = offset * (2 * t + 2) - 1;
            float left = temp[a + OFFSET(a)];
            temp[a + OFFSET(a)] = temp[b + OFFSET(b)];
            temp[b + OFFSET(b)] += left;
        }
    }
    __syncthreads();
    y[first] = temp[first + OFFSET(first)];
    y[second] = temp[second + OFFSET(second)];
}

// ---- others ---------------------------------------------------------------------------------------------------------
template <bool bug> __global__ void histogram(const unsigned char* data, unsigned* bins, int n) {
    __shared__ unsigned local[256];
    memset(local + 4 * threadIdx.x, 0, 16);    // histogram: zero
    if (!bug) __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&local[data[i]], 1u);    // histogram: add
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(bins + i, local[i]);
}
template <int SIZE> __global__ void product(float* c, const float* a, const float* b, int n) {
    float sum = 0;
    int row = SIZE * blockIdx.y + threadIdx.y, column = SIZE * blockIdx.x + threadIdx.x;
    for (int k = 0; k < n; k += SIZE) {
        __shared__ float as[SIZE][SIZE], bs[SIZE][SIZE];
        as[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
        bs[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + column];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum += as[threadIdx.y][i] * bs[i][threadIdx.x];
        __syncthreads();
    }
    c[row * n + column] = sum;
}
struct __align__(8) Norm {
    float largest, sum;
};
__device__ __forceinline__ Norm both(Norm a, Norm b) {
    Norm larger = a.largest > b.largest ? a : b, smaller = a.largest > b.largest ? b : a;
    return {larger.largest, larger.sum + smaller.sum * __expf(smaller.largest - larger.largest)};
}
template <bool bug> __global__ void softmax(const float* __restrict__ x, float* __restrict__ y, int n) {
    x += blockIdx.x * n, y += blockIdx.x * n;
    Norm norm = {-INFINITY, 0};
    for (int i = threadIdx.x; i < n; i += blockDim.x) norm = both(norm, {x[i], 1});
    for (int bits = 16; bits > 0; bits >>= 1)
        norm = both(norm, {__shfl_xor_sync(~0u, norm.largest, bits), __shfl_xor_sync(~0u, norm.sum, bits)});
    __shared__ Norm part[32];
    if (threadIdx.x % warpSize == 0) part[threadIdx.x / warpSize] = norm;
    if (!bug) __syncthreads();
    norm = part[0];
    for (int w = 1; w < blockDim.x / warpSize; w++) norm = both(norm, part[w]);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = __expf(x[i] - norm.largest) / norm.sum;
}
__device__ float warp_sum(float v) {
    for (int offset = 16; offset; offset >>= 1) v += __shfl_xor_sync(0xffffffff, v, offset);
    return v;
}
__global__ void layer_norm(float4* y, const float4* x, const float* __restrict__ weight, int n) {    // a warp a row
    float sum = 0, squares = 0;
    for (int i = threadIdx.x; i < n / 4; i += 32) {
        float4 v = x[blockIdx.x * n / 4 + i];
        sum += v.x + v.y + v.z + v.w, squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    float mean = warp_sum(sum) / n, scale = rsqrtf(warp_sum(squares) / n - mean * mean + 1e-5f);
    for (int i = threadIdx.x; i < n / 4; i += 32) {
        float4 v = x[blockIdx.x * n / 4 + i], w = __ldg(reinterpret_cast<const float4*>(weight) + i);
        y[blockIdx.x * n / 4 + i] = make_float4((v.x - mean) * scale * w.x, (v.y - mean) * scale * w.y,
                                                (v.z - mean) * scale * w.z, (v.w - mean) * scale * w.w);
    }
}
template <typename T> __global__ void saxpy(int n, T a, const T* x, T* y) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) y[i] = a * x[i] + y[i];
}
__global__ void saxpy(int n, half2 a, const half2* x, half2* y) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x)
        y[i] = __hfma2(a, x[i], y[i]);
}
#define RADIUS 4
__constant__ float weights[RADIUS + 1];
__global__ void derivative(const float* f, float* df) {
    __shared__ float s[64 + 2 * RADIUS];
    int i = blockIdx.x * 64 + threadIdx.x, at = threadIdx.x + RADIUS, n = gridDim.x * 64;
    s[at] = f[i];
    if (threadIdx.x < RADIUS) s[at - RADIUS] = f[(i - RADIUS + n) % n], s[at + 64] = f[(i + 64) % n];
    __syncthreads();
    float sum = weights[0] * s[at];
    for (int k = 1; k <= RADIUS; k++) sum += weights[k] * (s[at + k] - s[at - k]);
    df[i] = sum;
}
__global__ void filter(const int* from, int* to, int* count, int n) {    // one atomic operation for the lanes that stay
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || from[i] % 3) return;
    unsigned active = __activemask(), lane = threadIdx.x % 32, leader = __ffs(active) - 1;
    int base = 0;
    if (lane == leader) base = atomicAdd(count, __popc(active));
    base = __shfl_sync(active, base, leader);
    to[base + __popc(active & ((1u << lane) - 1))] = from[i];
}
__device__ float atomicMax(float* address, float v) {    // as CUDA's guide makes atomic operations
    int *bits = (int*)address, old = *bits, assumed;
    do {
        assumed = old;
        old = atomicCAS(bits, assumed, __float_as_int(fmaxf(v, __int_as_float(assumed))));
    } while (assumed != old);
    return __int_as_float(old);
}
__global__ void largest(const float* x, float* y) { atomicMax(y, x[blockIdx.x * blockDim.x + threadIdx.x]); }
__global__ void much_shared(float* x) {
    extern __shared__ float4 much[];
    for (int i = threadIdx.x; i < 4096; i += blockDim.x) much[i] = make_float4(i, 0, 0, 0);
    __syncthreads();
    x[threadIdx.x] = much[4095 - threadIdx.x].x;
}
__global__ void words(unsigned long long* y, unsigned long long v) {
    y[0] = __popcll(v), y[1] = __clz(int(v)), y[2] = __ffsll(v), y[3] = __brev(unsigned(v)), y[4] = __clzll(v);
    y[5] = __byte_perm(0x03020100, 0x07060504, 0x7531), y[6] = __float2int_rn(2.5f), y[7] = __umulhi(1u << 31, 6);
    __nv_bfloat162 pair = __hadd2(__floats2bfloat162_rn(1, 2), __float2bfloat162_rn(256.5f));
    y[8] = (unsigned long long)(__low2float(pair) + __bfloat162float(pair.y));    // 256 + 258: even numbers
}

template <class T> T* copied(const std::vector<T>& from) {
    T* to;
    CHECK(cudaMalloc((void**)&to, from.size() * sizeof(T)));
    CHECK(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return to;
}
template <class T> T* managed(int n, T value) {
    T* to;
    CHECK(cudaMallocManaged(&to, n * sizeof(T)));
    std::vector<T> values(n, value);
    std::copy(values.begin(), values.end(), to);    // by a memmove of the library
    return to;
}
static void near(const char* what, double came, double wanted) {
    if (!(fabs(came - wanted) <= 1e-5 * (1 + fabs(wanted)))) printf("%s: %g instead of %g\n", what, came, wanted);
}

int main() {
    const int N = 2048;
    const bool bug = getenv("BUG");
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    CHECK(cudaEventRecord(start, 0));
    std::vector<float> host(N);
    double sum = 0, up_to_300 = 0, exponentials = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        host[i] = i % 17 - 8, sum += host[i];
        if (i < 300) up_to_300 += host[i];
        if (i < 512) exponentials += exp(host[i]), squares += host[i] * host[i];
    }
    float *x = copied(host), *y, back[N];
    CHECK(cudaMalloc(&y, N * sizeof *y));
    auto fetch = [&] { CHECK(cudaMemcpy(back, y, sizeof back, cudaMemcpyDeviceToHost)); };

    interleaved<<<N / 128, 128, 512>>>(x, y, N);
    fetch(), near("interleaved", back[1], 28);
    by_shuffles<float, 128><<<1, 128>>>(x, y, N);
    fetch(), near("by_shuffles", back[0], sum);
    bug ? single_pass<true><<<8, 256, 1024>>>(x, y, N) : single_pass<false><<<8, 256, 1024>>>(x, y, N);
    fetch(), near("single_pass", back[0], sum);
    bug ? scan<true><<<1, 256, 528 * 4>>>(y, x, 512) : scan<false><<<1, 256, 528 * 4>>>(y, x, 512);
    if (fetch(), !bug) near("scan", back[300], up_to_300);

    unsigned char* data;
    CHECK(cudaMalloc(&data, N));
    CHECK(cudaMemset(data, 7, N));
    unsigned* bins = managed(256, 0u);
    bug ? histogram<true><<<4, 64>>>(data, bins, N) : histogram<false><<<4, 64>>>(data, bins, N);
    if (!bug) near("histogram", bins[7], N);

    product<16><<<dim3(2, 2), dim3(16, 16)>>>(y, x, x + 1024, 32);
    double element = 0;
    for (int k = 0; k < 32; k++) element += host[5 * 32 + k] * host[1024 + 32 * k + 9];
    fetch(), near("product", back[5 * 32 + 9], element);
    bug ? softmax<true><<<4, 128>>>(x, y, 512) : softmax<false><<<4, 128>>>(x, y, 512);
    if (fetch(), !bug) near("softmax", back[3], exp(host[3]) / exponentials);
    layer_norm<<<4, 32>>>((float4*)y, (const float4*)x, x, 512);
    double mean = 0;
    for (int i = 0; i < 512; i++) mean += host[i] / 512;
    fetch(), near("layer_norm", back[3], (host[3] - mean) / sqrt(squares / 512 - mean * mean + 1e-5) * host[3]);

    CHECK(cudaMemset(y, 0, N * sizeof *y));
    saxpy<<<4, 64>>>(N, 2.0f, x, y);
    fetch(), near("saxpy", back[5], 2 * host[5]);
    half2 *hx = managed(256, __floats2half2_rn(3, -3)), *hy = managed(256, __float2half2_rn(1.0f));
    saxpy<<<2, 64>>>(256, __float2half2_rn(0.5f), hx, hy);
    near("half2", __low2float(hy[3]), 2.5), near("half2", __half2float(hy[3].y), -0.5);

    float w[RADIUS + 1] = {0, 4.f / 5, -1.f / 5, 4.f / 105, -1.f / 280};
    CHECK(cudaMemcpyToSymbol(weights, w, sizeof w));
    derivative<<<N / 64, 64>>>(x, y);
    fetch(), near("derivative", back[76], 1);    // of a straight line

    std::vector<int> numbers(256);
    for (int i = 0; i < 256; i++) numbers[i] = i;
    int *from = copied(numbers), *to = managed(256, 0), *count = managed(1, 0);
    filter<<<4, 64>>>(from, to, count, 256);
    near("filter", *count, 86), near("filter", to[85], 255);
    float* most = managed(1, -100.0f);
    largest<<<8, 64>>>(x, most);
    near("largest", *most, 8);
    CHECK(cudaFuncSetAttribute(much_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
    much_shared<<<1, 256, 65536>>>(y);
    fetch(), near("much_shared", back[5], 4090);
    unsigned long long* bits = managed(9, 0ull);
    words<<<1, 1>>>(bits, 0xf0);
    const unsigned long long wanted[] = {4, 24, 5, 0xf000000, 56, 0x7050301, 2, 3, 514};
    for (int i = 0; i < 9; i++) near("words", double(bits[i]), double(wanted[i]));

    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(stop));
    CHECK(cudaEventSynchronize(stop));
    float milliseconds;
    CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
    printf("%f\n", milliseconds);
    exit(0);
}
