// Kernels whose counts a reader can work out. test_count.py has the answers; docs/counting.md explains them.
#include "gpu.h"

namespace {

// ---- global memory: x and y begin at a multiple of 128 bytes --------------------------------------------------------
__global__ void stride_one(const float* x, float* y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] + 1;
}
__global__ void wide(const float* x, float* y) {
    float4 v = ((const float4*)x)[threadIdx.x];
    ((float4*)y)[threadIdx.x] = v;
}
__global__ void column(const float* x, float* y) { y[threadIdx.x] = x[32 * threadIdx.x]; }
__global__ void strided(const float* x, float* y) { y[threadIdx.x] = x[2 * threadIdx.x + 1]; }
__global__ void shifted(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
__global__ void broadcast(const float* x, float* y) { y[threadIdx.x] = x[7]; }
__global__ void rest(const float* x, float* y) {    // 40 threads: a warp and a quarter
    y[threadIdx.x] = x[threadIdx.x];    // of rest
}
__global__ void twice(const float* x, float* y) {    // each block reads the same, and reads again what it wrote
    float sum = x[threadIdx.x];
    y[blockIdx.x * 32 + threadIdx.x] = sum;
    __syncthreads();
    y[blockIdx.x * 32 + threadIdx.x] += y[blockIdx.x * 32 + 31 - threadIdx.x] + x[31 - threadIdx.x];
}

// ---- shared memory --------------------------------------------------------------------------------------------------
template <int S> __global__ void tile(const float* x, float* y) {
    __shared__ float tile[32][S];
    for (int r = 0; r < 32; r++) tile[r][threadIdx.x] = x[32 * r + threadIdx.x];
    __syncthreads();
    for (int r = 0; r < 32; r++) y[32 * r + threadIdx.x] = tile[threadIdx.x][r];
}
__global__ void swizzled(const float* x, float* y) {
    __shared__ float tile[32][32];
    for (int r = 0; r < 32; r++) tile[r][r ^ threadIdx.x] = x[32 * r + threadIdx.x];
    __syncthreads();
    for (int r = 0; r < 32; r++) y[32 * r + threadIdx.x] = tile[threadIdx.x][threadIdx.x ^ r];
}
__global__ void shared_wide(const float* x, float* y) {
    float4* s = dynamic_shared<float4>();
    s[threadIdx.x] = ((const float4*)x)[threadIdx.x];
    __syncthreads();
    float4 own = s[threadIdx.x];
    float4 same = s[5];
    float4 pairs = s[threadIdx.x / 2];
    float strided = s[threadIdx.x].y;
    y[threadIdx.x] = own.x + same.y + pairs.z + strided;
}
__global__ void shared_doubles(const float* x, float* y) {
    __shared__ double s[64];
    s[threadIdx.x] = x[threadIdx.x];
    s[2 * threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = float(s[threadIdx.x ^ 1]);
}
template <int S> __global__ void matrices(const float* x, float* y) {
    __shared__ uint16_t tile[16 * S] __attribute__((aligned(16)));
    for (int i = threadIdx.x; i < 16 * S; i += 32) tile[i] = uint16_t(x[i]);
    __syncthreads();
    uint32_t a[4], b[2];
    load_matrix_x4(a, tile + threadIdx.x % 16 * S + threadIdx.x / 16 * 8);
    load_matrix_x2(b, tile + threadIdx.x % 16 * S);
    float d[4] = {};
    mma_16x8x16_f16(d, a, b);
    y[threadIdx.x] = d[0];
}
__global__ void staged(const float* x, float* y) {
    float* s = dynamic_shared<float>();
    for (int stage = 0; stage < 2; stage++) {
        copy_async<16>(s + 4 * threadIdx.x, x + 4 * threadIdx.x, threadIdx.x < 24 ? 16 : 0);
        copy_async_commit();
        copy_async_wait<0>();
    }
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

// ---- lanes that part ------------------------------------------------------------------------------------------------
__global__ void divergent(const float* x, float* y) {
    float sum = 0;
    for (int i = 0; i < int(threadIdx.x) % 4 + 1; i++) sum += x[32 * i + threadIdx.x];
    y[threadIdx.x] = sum;
}
__global__ void nested(const float* x, float* y) {    // even lanes 1 and 2 rounds, odd lanes 2 and 1
    float sum = 0;
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < int(i + threadIdx.x) % 2 + 1; j++) sum += x[32 * j + threadIdx.x];
        y[32 * i + threadIdx.x] = sum;    // of nested
    }
}
// The first branch behind a shuffle, a vote and __syncwarp: half of the lanes take it
__global__ void behind(const float* x, float* y) {
    float moved = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
    if (threadIdx.x < 16) y[threadIdx.x] = moved;
    unsigned which = __ballot_sync(0xffffffffu, threadIdx.x % 2);
    if (which >> threadIdx.x & 1) y[threadIdx.x] = moved;
    __syncwarp();
    if (threadIdx.x >= 16) y[threadIdx.x] = moved;
}
__device__ __noinline__ float doubled(const float* x, int i) { return 2 * x[i]; }
__global__ void calls(const float* x, float* y) {
    float sum = 0;
    for (int i = 0; i < 2; i++) {
        if ((threadIdx.x + i) % 2) sum += doubled(x, int(threadIdx.x));
        y[32 * i + threadIdx.x] = sum;    // of calls
    }
}
// g++ places a block of this condition behind the end of the loop
__global__ void smallest(const float* x, float* y) {
    double best = 2;
    int at = 0;
    for (int k = 0; k < 16; k++) {
        double v = x[32 * k + threadIdx.x];
        if (v < best || (v == best && k < at)) best = v, at = k;
    }
    y[threadIdx.x] = float(at);
}
// With -ftree-ch g++ copies the first loop's own condition into both arms of the other one
__device__ __forceinline__ void softmax(float* w, int K) {
    float top = w[0], sum = 0;
    for (int j = 1; j < K; j++) top = w[j] > top || w[j] != w[j] ? w[j] : top;
    for (int j = 0; j < K; j++) sum += w[j] = exp(w[j] - top);
    for (int j = 0; j < K; j++) w[j] /= sum;
}
__global__ void largest(const float* x, float* y) {
    float* w = dynamic_shared<float>() + threadIdx.x * 9;
    for (int j = 0; j < 9; j++) w[j] = x[j + 9 * threadIdx.x];
    softmax(w, blockDim.x / 4);
    y[threadIdx.x] = w[0];
}
__global__ void sum(const float* x, float* y) {
    float v = x[threadIdx.x];
    if (threadIdx.x >= 48) return;    // half of the second warp
    for (int delta = 8; delta; delta /= 2) v += __shfl_down_sync(0xffffffffu, v, unsigned(delta));
    if (threadIdx.x == 0) y[0] = v;
}

// ---- atomic operations ----------------------------------------------------------------------------------------------
__global__ void histogram(const float*, float* y) { atomicAdd(&y[threadIdx.x % 4], 1.f); }
__global__ void histogram_in_shared(const float*, float* y) {
    __shared__ float bin[4];
    if (threadIdx.x < 4) bin[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&bin[threadIdx.x % 4], 1.f);
    __syncthreads();
    if (threadIdx.x < 4) y[threadIdx.x] = bin[threadIdx.x];
}
__global__ void fails(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];
    copy_async<16>(y, x + 1);    // not a multiple of 16 bytes
}

}    // namespace

#define RUN(name, kernel, blocks, threads, shared)                                 \
    extern "C" int run_##name(const float* x, float* y) {                          \
        return launch(kernel, dim3(blocks), dim3(threads), shared, nullptr, x, y); \
    }
RUN(stride_one, stride_one, 4, 128, 0)
RUN(wide, wide, 1, 32, 0)
RUN(column, column, 1, 32, 0)
RUN(strided, strided, 1, 32, 0)
RUN(shifted, shifted, 1, 32, 0)
RUN(broadcast, broadcast, 1, 32, 0)
RUN(rest, rest, 1, 40, 0)
RUN(twice, twice, 3, 32, 0)
RUN(tile_32, tile<32>, 1, 32, 0)
RUN(tile_33, tile<33>, 1, 32, 0)
RUN(swizzled, swizzled, 1, 32, 0)
RUN(shared_wide, shared_wide, 1, 32, 512)
RUN(shared_doubles, shared_doubles, 1, 32, 0)
RUN(matrices_32, matrices<32>, 1, 32, 0)
RUN(matrices_40, matrices<40>, 1, 32, 0)
RUN(staged, staged, 1, 32, 512)
RUN(divergent, divergent, 1, 32, 0)
RUN(nested, nested, 1, 32, 0)
RUN(behind, behind, 1, 32, 0)
RUN(calls, calls, 1, 32, 0)
RUN(smallest, smallest, 1, 32, 0)
RUN(largest, largest, 1, 32, 4 * 32 * 9)
RUN(sum, sum, 1, 64, 0)
RUN(histogram, histogram, 1, 32, 0)
RUN(histogram_in_shared, histogram_in_shared, 1, 32, 0)
RUN(fails, fails, 1, 32, 0)
