// Kernels that show what each word of csrc/gpu.h means, one a paragraph. The tests test_emulator*.py run them on the
// emulator and check what comes out; nvcc compiles the same file.

#include "gpu.h"

__device__ __forceinline__ int thread_in_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
__device__ __forceinline__ int block_in_grid() {
    return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}
__device__ __forceinline__ int threads_of_block() { return blockDim.x * blockDim.y * blockDim.z; }

// ---- grids, barriers, shared memory ---------------------------------------------------------------------------------

__global__ void indices(int* out) {    // (blocks, threads, 6)
    int* o = out + 6 * (int64_t(block_in_grid()) * threads_of_block() + thread_in_block());
    o[0] = blockIdx.x, o[1] = blockIdx.y, o[2] = blockIdx.z, o[3] = threadIdx.x, o[4] = threadIdx.y, o[5] = threadIdx.z;
}
extern "C" int run_indices(int* out, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz) {
    return launch(indices, dim3(gx, gy, gz), dim3(bx, by, bz), 0, nullptr, out);
}
extern "C" int run_shared_bytes(int* out, int64_t bytes) {
    return launch(indices, dim3(1), dim3(1), bytes, nullptr, out);
}

// Threads below `leave` return before the first barrier.
__global__ void barrier_votes(const int* p, int* out, int leave) {
    int i = threadIdx.x;
    if (i < leave) return;
    out[4 * i] = __syncthreads_count(p[i]);
    out[4 * i + 1] = __syncthreads_or(p[i]);
    out[4 * i + 2] = __syncthreads_and(p[i]);
    __syncthreads();
    out[4 * i + 3] = 7;
}
extern "C" int run_barrier_votes(const int* p, int* out, int leave, int threads) {
    return launch(barrier_votes, dim3(1), dim3(threads), 0, nullptr, p, out, leave);
}

// Reverses each block's 96 numbers, through both kinds of shared memory.
template <class T> __global__ void reverse(const T* x, T* y) {
    __shared__ T fixed[96];
    T* dynamic = dynamic_shared<T>();
    int i = threadIdx.x, n = blockIdx.x;
    fixed[i] = x[96 * n + i];
    __syncthreads();
    dynamic[i] = fixed[95 - i];
    __syncthreads();
    y[96 * n + i] = dynamic[(95 - i) ^ 1];
}
extern "C" int run_reverse(int dtype, const void* x, void* y, int blocks) {
    return with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        return launch(reverse<T>, dim3(blocks), dim3(96), 96 * sizeof(T), nullptr, (const T*)x, (T*)y);
    });
}

__global__ void uninitialised(float* out) {    // (blocks, 2, 32): reads what it never wrote, then writes it
    __shared__ float fixed[32];
    float* dynamic = dynamic_shared<float>();
    int i = threadIdx.x;
    float* o = out + 64 * blockIdx.x;
    o[i] = fixed[i], o[32 + i] = dynamic[i];
    fixed[i] = dynamic[i] = 1;
}
extern "C" int run_uninitialised(float* out, int blocks) {
    return launch(uninitialised, dim3(blocks), dim3(32), 128, nullptr, out);
}

__global__ void order(int* ticket, int* out) {    // (2, threads): who came first, before a barrier and after it
    out[atomicAdd(ticket, 1)] = threadIdx.x;
    __syncthreads();
    out[atomicAdd(ticket, 1)] = threadIdx.x;
}
extern "C" int run_order(int* ticket, int* out, int threads) {
    return launch(order, dim3(1), dim3(threads), 0, nullptr, ticket, out);
}

// ---- warps ----------------------------------------------------------------------------------------------------------

template <class T> __global__ void shuffle(int kind, const T* in, T* out, uint32_t mask, int amount, int width) {
    int i = threadIdx.x;
    if (!(mask >> i % 32 & 1)) return;
    T v = in[i];
    out[i] = kind == 0   ? __shfl_sync(mask, v, amount, width)
             : kind == 1 ? __shfl_up_sync(mask, v, amount, width)
             : kind == 2 ? __shfl_down_sync(mask, v, amount, width)
                         : __shfl_xor_sync(mask, v, amount, width);
}
extern "C" int run_shuffle(int kind, int is_double, const void* in, void* out, uint32_t mask, int amount, int width,
                           int threads) {
    if (is_double)
        return launch(shuffle<double>, dim3(1), dim3(threads), 0, nullptr, kind, (const double*)in, (double*)out, mask,
                      amount, width);
    return launch(shuffle<int>, dim3(1), dim3(threads), 0, nullptr, kind, (const int*)in, (int*)out, mask, amount,
                  width);
}

__global__ void two_halves(const int* in, int* out) {    // the halves of a warp go different ways and meet again
    int i = threadIdx.x, v = in[i];
    if (i % 2)
        for (int o = 2; o < 32; o *= 2) v += __shfl_xor_sync(0xaaaaaaaau, v, o);
    else v = __reduce_max_sync(0x55555555u, v);
    __syncwarp();
    out[i] = v + __shfl_xor_sync(0xffffffffu, v, 1);
}
extern "C" int run_two_halves(const int* in, int* out) {
    return launch(two_halves, dim3(1), dim3(32), 0, nullptr, in, out);
}

__global__ void active(const int* in, uint32_t* out) {    // (2, threads); lanes that go the same way, and all
    int i = threadIdx.x;
    if (in[i] < 0) return;
    if (in[i] % 2)
        out[i] = __activemask();
    else
        out[i] = __activemask();
    out[blockDim.x + i] = __activemask();
    __syncthreads();
}
extern "C" int run_active(const int* in, uint32_t* out, int threads) {
    return launch(active, dim3(1), dim3(threads), 0, nullptr, in, out);
}

__global__ void votes(const int* in, int* out, uint32_t mask) {    // (12, threads)
    int i = threadIdx.x, n = blockDim.x, v = in[i];
    if (!(mask >> i % 32 & 1)) return;
    out[i] = __ballot_sync(mask, v > 0);
    out[n + i] = __any_sync(mask, v > 0);
    out[2 * n + i] = __all_sync(mask, v > 0);
    out[3 * n + i] = __match_any_sync(mask, v);
    out[4 * n + i] = __reduce_add_sync(mask, v);
    out[5 * n + i] = __reduce_min_sync(mask, v);
    out[6 * n + i] = __reduce_max_sync(mask, v);
    out[7 * n + i] = __reduce_min_sync(mask, unsigned(v));
    out[8 * n + i] = __reduce_max_sync(mask, unsigned(v));
    out[9 * n + i] = __reduce_and_sync(mask, unsigned(v));
    out[10 * n + i] = __reduce_or_sync(mask, unsigned(v));
    out[11 * n + i] = __reduce_xor_sync(mask, unsigned(v));
}
extern "C" int run_votes(const int* in, int* out, uint32_t mask, int threads) {
    return launch(votes, dim3(1), dim3(threads), 0, nullptr, in, out, mask);
}

// ---- atomics --------------------------------------------------------------------------------------------------------

__global__ void atomics(const int* in, float* f, double* d, int* i, unsigned* u, unsigned long long* l, int64_t N) {
    __shared__ unsigned histogram[16];
    if (threadIdx.x < 16) histogram[threadIdx.x] = 0;
    __syncthreads();
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < N) {
        int v = in[n];
        atomicAdd(f, float(v)), atomicAdd(d, double(v));
        atomicAdd(i, v), atomicMin(i + 1, v), atomicMax(i + 2, v), atomicSub(i + 3, v);
        atomicAnd(u, unsigned(v)), atomicOr(u + 1, unsigned(v)), atomicXor(u + 2, unsigned(v));
        atomicInc(u + 3, 99), atomicDec(u + 4, 99);
        atomicAdd(l, (unsigned long long)(v)), atomicMax(l + 1, (unsigned long long)(unsigned(v)));
        for (unsigned long long old = l[2], seen;; old = seen) {    // a sum by compare-and-swap
            seen = atomicCAS(l + 2, old, old + (unsigned long long)(v));
            if (seen == old) break;
        }
        atomicAdd(&histogram[v & 15], 1u);
    }
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(u + 5 + threadIdx.x, histogram[threadIdx.x]);
}
extern "C" int run_atomics(const int* in, float* f, double* d, int* i, unsigned* u, unsigned long long* l, int64_t N) {
    return launch(atomics, dim3((N + 127) / 128), dim3(128), 0, nullptr, in, f, d, i, u, l, N);
}

// ---- numbers --------------------------------------------------------------------------------------------------------

template <class T> __global__ void widen(const T* in, float* out, int64_t N) {
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < N) out[n] = to_float(in[n]);
}
template <class T, class R> __global__ void narrow(const R* in, T* out, int64_t N) {
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < N) out[n] = from_real<T>(in[n]);
}
static dim3 blocks_of_256(int64_t N) { return dim3((N + 255) / 256); }
extern "C" int run_widen(int dtype, const void* in, float* out, int64_t N) {
    if (dtype == 1) return launch(widen<float16>, blocks_of_256(N), dim3(256), 0, nullptr, (const float16*)in, out, N);
    return launch(widen<bfloat16>, blocks_of_256(N), dim3(256), 0, nullptr, (const bfloat16*)in, out, N);
}
template <class R> int narrow_from(int dtype, const R* in, void* out, int64_t N) {
    return with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        return launch(narrow<T, R>, blocks_of_256(N), dim3(256), 0, nullptr, in, (T*)out, N);
    });
}
extern "C" int run_narrow(int dtype, int from_double, const void* in, void* out, int64_t N) {
    return from_double ? narrow_from(dtype, (const double*)in, out, N) : narrow_from(dtype, (const float*)in, out, N);
}

__global__ void roundings(const float* a, const float* b, const double* c, float* out, int64_t N) {    // (16, N)
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n >= N) return;
    float x = a[n], y = b[n];
    float results[16] = {__fadd_rn(x, y), __fadd_rz(x, y), __fadd_ru(x, y), __fadd_rd(x, y),
                         __fmul_rn(x, y), __fmul_rz(x, y), __fmul_ru(x, y), __fmul_rd(x, y),
                         __fsub_rn(x, y), __fsub_rz(x, y), __fsub_ru(x, y), __fsub_rd(x, y),
                         __double2float_rn(c[n]), __double2float_rz(c[n]),
                         __double2float_ru(c[n]), __double2float_rd(c[n])};
    for (int i = 0; i < 16; i++) out[i * N + n] = results[i];
}
extern "C" int run_roundings(const float* a, const float* b, const double* c, float* out, int64_t N) {
    return launch(roundings, blocks_of_256(N), dim3(256), 0, nullptr, a, b, c, out, N);
}

__global__ void intrinsics(const float* a, const float* b, float* out, int64_t N) {    // (10, N)
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n >= N) return;
    float x = a[n], y = b[n];
    float results[10] = {__expf(x), __exp10f(x), __logf(x), __log2f(x), __log10f(x),
                         __sinf(x), __cosf(x), rsqrtf(x), __fdividef(x, y), __powf(x, y)};
    for (int i = 0; i < 10; i++) out[i * N + n] = results[i];
}
extern "C" int run_intrinsics(const float* a, const float* b, float* out, int64_t N) {
    return launch(intrinsics, blocks_of_256(N), dim3(256), 0, nullptr, a, b, out, N);
}

__global__ void tf32(const float* in, uint32_t* out, int64_t N) {
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < N) out[n] = to_tf32(in[n]);
}
extern "C" int run_tf32(const float* in, uint32_t* out, int64_t N) {
    return launch(tf32, blocks_of_256(N), dim3(256), 0, nullptr, in, out, N);
}

__global__ void wide(const float4* in, double2* out) {    // 16 bytes a load, 16 a store
    float4 v = in[threadIdx.x];
    out[2 * threadIdx.x] = make_double2(v.x, v.y), out[2 * threadIdx.x + 1] = make_double2(v.z, __ldg(&v.w));
}
extern "C" int run_wide(const float* in, double* out, int threads) {
    return launch(wide, dim3(1), dim3(threads), 0, nullptr, (const float4*)in, (double2*)out);
}

// ---- asynchronous copies, matrices ----------------------------------------------------------------------------------

// One thread, two groups of copies: out (5, 8) holds the shared memory before, between and after the waits.
__global__ void copies(const float* in, float* out) {
    float* shared = dynamic_shared<float>();
    for (int i = 0; i < 8; i++) shared[i] = -1;
    copy_async<16>(shared, in);
    copy_async_commit();
    copy_async<16>(shared + 4, in + 4, 12);    // the last four bytes become zero
    copy_async_commit();
    for (int i = 0; i < 8; i++) out[i] = shared[i];
    copy_async_wait<1>();
    for (int i = 0; i < 8; i++) out[8 + i] = shared[i];
    copy_async_wait<0>();
    for (int i = 0; i < 8; i++) out[16 + i] = shared[i];
    copy_async<8>(shared, in + 2);
    copy_async<4>(shared + 2, in + 7, 0);
    copy_async_wait<0>();    // not committed: still on its way
    for (int i = 0; i < 8; i++) out[24 + i] = shared[i];
    copy_async_commit(), copy_async_wait<0>();
    for (int i = 0; i < 8; i++) out[32 + i] = shared[i];
}
extern "C" int run_copies(const float* in, float* out) {
    return launch(copies, dim3(1), dim3(1), 32, nullptr, in, out);
}

__global__ void copy_meanwhile(float* x, float* out) {    // x changes before the wait
    float* shared = dynamic_shared<float>();
    copy_async<16>(shared, x, 12);
    copy_async_commit();
    for (int i = 0; i < 4; i++) x[i] = -1;
    copy_async_wait<0>();
    for (int i = 0; i < 4; i++) out[i] = shared[i];
}
extern "C" int run_copy_meanwhile(float* x, float* out) {
    return launch(copy_meanwhile, dim3(1), dim3(1), 32, nullptr, x, out);
}

__global__ void matrices(const uint32_t* in, uint32_t* out, int transposed) {    // in (4, 8, 4 words), out (6, 32)
    uint32_t* shared = dynamic_shared<uint32_t>();
    int l = threadIdx.x;
    for (int i = 0; i < 4; i++) shared[4 * l + i] = in[4 * l + i];
    __syncthreads();
    uint32_t four[4], two[2];
    const void* row = shared + 4 * l;
    if (transposed) load_matrix_x4_transposed(four, row), load_matrix_x2_transposed(two, l < 16 ? row : shared);
    else load_matrix_x4(four, row), load_matrix_x2(two, l < 16 ? row : shared);
    for (int i = 0; i < 4; i++) out[32 * i + l] = four[i];
    for (int i = 0; i < 2; i++) out[32 * (4 + i) + l] = two[i];
}
extern "C" int run_matrices(const uint32_t* in, uint32_t* out, int transposed) {
    return launch(matrices, dim3(1), dim3(32), 512, nullptr, in, out, transposed);
}

template <class T> __device__ __forceinline__ uint32_t two(const T* low, const T* high) {
    uint16_t bits[2];
    memcpy(&bits[0], low, 2), memcpy(&bits[1], high, 2);
    return bits[0] | uint32_t(bits[1]) << 16;
}
// d (M, 16, 8) += a (M, 16, K) b (M, K, 8), one warp an m, fragments by hand from the tables in gpu.h
template <class T> __global__ void multiply_16(int kind, const T* a, const T* b, float* d) {
    int l = threadIdx.x, r = l / 4, c = l % 4;
    a += blockIdx.x * 16 * 16, b += blockIdx.x * 16 * 8, d += blockIdx.x * 16 * 8;
    uint32_t A[4], B[2];
    float D[4];
    for (int i = 0; i < 4; i++) {
        const T* p = a + (r + i % 2 * 8) * 16 + 2 * c + i / 2 * 8;
        A[i] = two(p, p + 1);
        D[i] = d[(r + i / 2 * 8) * 8 + 2 * c + i % 2];
    }
    for (int i = 0; i < 2; i++) B[i] = two(b + (2 * c + 8 * i) * 8 + r, b + (2 * c + 8 * i + 1) * 8 + r);
    if (kind == 1) mma_16x8x16_f16(D, A, B);
    else mma_16x8x16_bf16(D, A, B);
    for (int i = 0; i < 4; i++) d[(r + i / 2 * 8) * 8 + 2 * c + i % 2] = D[i];
}
__global__ void multiply_8(const uint32_t* a, const uint32_t* b, float* d) {
    int l = threadIdx.x, r = l / 4, c = l % 4;
    a += blockIdx.x * 16 * 8, b += blockIdx.x * 8 * 8, d += blockIdx.x * 16 * 8;
    uint32_t A[4], B[2];
    float D[4];
    for (int i = 0; i < 4; i++) {
        A[i] = a[(r + i % 2 * 8) * 8 + c + i / 2 * 4];
        D[i] = d[(r + i / 2 * 8) * 8 + 2 * c + i % 2];
    }
    for (int i = 0; i < 2; i++) B[i] = b[(c + 4 * i) * 8 + r];
    mma_16x8x8_tf32(D, A, B);
    for (int i = 0; i < 4; i++) d[(r + i / 2 * 8) * 8 + 2 * c + i % 2] = D[i];
}
extern "C" int run_multiply(int kind, const void* a, const void* b, float* d, int M) {
    if (kind == 0) return launch(multiply_8, dim3(M), dim3(32), 0, nullptr, (const uint32_t*)a, (const uint32_t*)b, d);
    return launch(multiply_16<uint16_t>, dim3(M), dim3(32), 0, nullptr, kind, (const uint16_t*)a, (const uint16_t*)b,
                  d);
}

#include "test_emulator_mistakes.cu"
