// Kernels that are right, and with `bug` lack what orders their accesses of shared memory. test_races.py says which two
// lines must be named.
#include "gpu.h"

namespace {

// ---- barriers of the block ------------------------------------------------------------------------------------------
template <bool bug> __global__ void reversed(const float* x, float* y) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];    // reversed: one
    if (!bug) __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];    // reversed: other
}
template <bool bug> __global__ void refilled(const float* x, float* y) {    // the next round writes what others read
    float* s = dynamic_shared<float>();
    float sum = 0;
    for (int round = 0; round < 3; round++) {
        s[threadIdx.x] = x[64 * round + threadIdx.x];    // refilled: one
        __syncthreads();
        sum += s[63 - threadIdx.x];    // refilled: other
        if (!bug) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

// ---- lanes of a warp ------------------------------------------------------------------------------------------------
template <bool bug> __global__ void tail(const float* x, float* y) {
    __shared__ float s[64];
    int i = threadIdx.x;
    s[i] = x[i];
    __syncthreads();
    if (i >= 32) return;
    for (int half = 32; half > 0; half /= 2) {
        float v = i < half ? s[i] + s[i + half] : 0;    // tail: other
        __syncwarp();
        if (i < half) s[i] = v;    // tail: one
        if (!bug) __syncwarp();
    }
    if (i == 0) *y = s[0];
}
template <bool bug> __global__ void halves(const float* x, float* y) {    // each half of a warp waits for itself alone
    __shared__ float s[32];
    int i = threadIdx.x;
    s[i] = x[i];    // halves: one
    __syncwarp(i < 16 ? 0xffffu : 0xffff0000u);
    y[i] = s[i ^ (bug ? 16 : 15)];    // halves: other
}
template <bool bug> __global__ void chain(const float* x, float* y) {    // lane 0 tells lane 1, and lane 1 tells lane 2
    __shared__ float s;
    if (threadIdx.x == 0) s = x[0];    // chain: one
    unsigned second = bug ? 0xc : 0x6;
    if (threadIdx.x < 2) __syncwarp(0x3);
    if (second >> threadIdx.x & 1) __syncwarp(second);
    if (threadIdx.x == 2) *y = s;    // chain: other
}
template <bool bug> __global__ void shuffled(const float* x, float* y) {    // a shuffle orders no memory
    __shared__ float s[32];
    s[threadIdx.x] = x[threadIdx.x];    // shuffled: one
    int other = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
    if (!bug) __syncwarp();
    y[threadIdx.x] = s[other];    // shuffled: other
}

// ---- other accesses -------------------------------------------------------------------------------------------------
template <bool bug> __global__ void counted(const float*, float* y) {    // atomic operations order each other alone
    __shared__ int n;
    if (threadIdx.x == 0) n = 0;
    __syncthreads();
    atomicAdd(&n, 1);    // counted: one
    if (!bug) __syncthreads();
    y[threadIdx.x] = float(n);    // counted: other
}
template <bool bug> __global__ void bytes(const float* x, float* y) {    // neighbours in one word of shared memory
    __shared__ uint8_t s[64];
    s[threadIdx.x] = uint8_t(x[threadIdx.x]);    // bytes: one
    y[threadIdx.x] = s[threadIdx.x ^ bug];    // bytes: other
}
template <bool bug> __global__ void neighbour(const float* x, float* y) {    // one waits for one's own copies
    __shared__ __align__(16) float s[256];
    int i = threadIdx.x;
    copy_async<16>(s + 4 * i, x + 4 * i);    // neighbour: one
    copy_async_commit(), copy_async_wait<0>();
    if (!bug) __syncthreads();
    y[i] = s[252 - 4 * i];    // neighbour: other
}
template <bool bug> __global__ void matrices(const float* x, float* y) {
    __shared__ __align__(16) uint16_t s[64 * 8];
    for (int i = 0; i < 8; i++) s[8 * threadIdx.x + i] = uint16_t(x[threadIdx.x]);    // matrices: one
    if (!bug) __syncthreads();
    uint32_t r[4];
    load_matrix_x4(r, s + 8 * (63 - threadIdx.x));    // matrices: other
    y[threadIdx.x] = float(r[0]);
}

}    // namespace

#define RUN(kernel)                                                                \
    extern "C" int run_##kernel(int bug, const float* x, float* y) {               \
        return bug ? launch(kernel<true>, dim3(2), dim3(64), 256, nullptr, x, y)   \
                   : launch(kernel<false>, dim3(2), dim3(64), 256, nullptr, x, y); \
    }
RUN(reversed)
RUN(refilled)
RUN(tail)
RUN(counted)
RUN(bytes)
RUN(neighbour)
RUN(matrices)
#undef RUN
#define RUN(kernel)                                                              \
    extern "C" int run_##kernel(int bug, const float* x, float* y) {             \
        return bug ? launch(kernel<true>, dim3(2), dim3(32), 0, nullptr, x, y)   \
                   : launch(kernel<false>, dim3(2), dim3(32), 0, nullptr, x, y); \
    }
RUN(halves)
RUN(chain)
RUN(shuffled)
