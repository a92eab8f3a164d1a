// Kernels that are right, and with `bug` have one hazard of memory. test_races.py says which lines must be named.
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
template <bool bug> __global__ void zeroed(const float*, float* y) {    // its thread adds before the others
    __shared__ int s[32];
    if (threadIdx.x < 32) s[threadIdx.x] = 0;    // zeroed: one
    if (!bug) __syncthreads();
    atomicAdd(&s[threadIdx.x % 32], 1);    // zeroed: other
    __syncthreads();
    if (threadIdx.x < 32) y[threadIdx.x] = float(s[threadIdx.x]);
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

template <bool bug> __global__ void unwaited(const float* x, float* y) {    // one's own copy, before the wait for it
    __shared__ __align__(16) float s[256];
    copy_async<16>(s + 4 * threadIdx.x, x + 4 * threadIdx.x);    // unwaited: one
    copy_async_commit();
    if (!bug) copy_async_wait<0>();
    y[threadIdx.x] = s[4 * threadIdx.x];    // unwaited: other
}
template <bool bug> __global__ void late(const float* x, float* y) {    // the wait must come before the barrier
    __shared__ __align__(16) float s[256];
    int i = threadIdx.x;
    copy_async<16>(s + 4 * i, x + 4 * i), copy_async_commit();    // late: one
    if (!bug) copy_async_wait<0>();
    __syncthreads();
    if (bug) copy_async_wait<0>();
    y[i] = s[252 - 4 * i];    // late: other
}
template <bool bug> __global__ void moved(const float* x, float* y) {    // 24 bytes: no number's
    __shared__ __align__(8) float s[6 * 64];
    memcpy(s + 6 * threadIdx.x, x + 6 * threadIdx.x, 24);    // moved: one
    if (!bug) __syncthreads();
    y[threadIdx.x] = s[6 * (63 - threadIdx.x)];    // moved: other
}
struct Six {
    float of[6];
};
template <bool bug> __global__ void assigned(const float* x, float* y) {    // g++ makes a memcpy of it
    __shared__ __align__(8) Six s[64];
    s[threadIdx.x] = ((const Six*)x)[threadIdx.x];    // assigned: one
    if (!bug) __syncthreads();
    Six six = s[63 - threadIdx.x];    // assigned: other
    y[threadIdx.x] = six.of[0] + six.of[5];
}

// ---- global memory, within a block ----------------------------------------------------------------------------------
template <bool bug> __global__ void through(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];    // through: one
    if (!bug) __syncthreads();
    y[64 + threadIdx.x] = y[63 - threadIdx.x];    // through: other
}
template <bool bug> __global__ void crowd(const float*, float* y) {    // all read what one writes
    float v = y[0];    // crowd: one
    if (!bug) __syncthreads();
    if (threadIdx.x == 7) y[0] = 2;    // crowd: other
    y[1 + threadIdx.x] = v;
}
template <bool bug> __global__ void narrow(const float* x, float* y) {    // bytes, in a page of wide accesses
    if (threadIdx.x == 0) *(float4*)y = *(const float4*)x;
    __syncthreads();
    uint8_t* byte = (uint8_t*)y;
    byte[threadIdx.x] = 1;    // narrow: one
    byte[64 + threadIdx.x] = byte[threadIdx.x ^ bug];    // narrow: other
}

// ---- blocks ---------------------------------------------------------------------------------------------------------
template <bool bug> __global__ void before(const float* x, float* y) {
    int i = blockIdx.x;
    if (threadIdx.x) return;
    y[i] = x[i];    // before: one
    y[8 + i] = y[bug && i ? i - 1 : i];    // before: other
}
template <bool bug> __global__ void one_cell(const float*, float* y) {    // all the same value: a race all the same
    if (threadIdx.x == 0) y[bug ? 0 : blockIdx.x] = 1;    // one_cell: one, one_cell: other
}
template <bool bug> __global__ void zeroed_bins(const float*, float* y) {
    if (threadIdx.x < 32) y[threadIdx.x] = 0;    // zeroed_bins: one
    if (!bug) __syncthreads();
    atomicAdd(&y[threadIdx.x % 32], 1.0f);    // zeroed_bins: other
}
template <bool bug> __global__ void bins(const float*, float* y) {
    atomicAdd(&y[threadIdx.x], 1.0f);    // bins: one
    __syncthreads();
    y[64 + 64 * blockIdx.x + threadIdx.x] = bug ? y[threadIdx.x] : atomicAdd(&y[threadIdx.x], 0.0f);    // bins: other
}
// The last block to come adds what the others left: write, fence, atomic operation; atomic operation, fence, read
template <bool first, bool second> __device__ bool is_last(float* ticket) {
    if (first) __threadfence();
    bool last = atomicAdd((int*)ticket, 1) == int(gridDim.x) - 1;
    if (second) __threadfence();
    return last;
}
template <bool bug> __global__ void untold(const float* x, float* y) {
    if (threadIdx.x) return;
    y[blockIdx.x] = x[blockIdx.x];    // untold: one
    if (!is_last<!bug, true>(y + 100)) return;
    float sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += y[b];    // untold: other
    y[101] = sum;
    *(int*)(y + 100) = 0;    // for the next launch: after the atomic operations of all blocks
}
template <bool bug> __global__ void unheard(const float* x, float* y) {
    if (threadIdx.x) return;
    y[blockIdx.x] = x[blockIdx.x];    // unheard: one
    if (!is_last<true, !bug>(y + 100)) return;
    float sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += y[b];    // unheard: other
    y[101] = sum;
}
template <bool bug> __global__ void guessed(const float*, float* y) {    // as CUDA's guide adds a double
    int *p = (int*)y, old = *p, assumed;    // guessed: one
    if (bug) atomicMax(p, old + 1);    // guessed: other
    else
        do assumed = old, old = atomicCAS(p, assumed, assumed + int(y[1]) + 1);
        while (assumed != old);
}
template <bool bug> __global__ void summed(const float* x, float* y) {    // the sum is not the ticket
    if (threadIdx.x) return;
    atomicAdd(y + 101, x[blockIdx.x]);    // summed: one
    if (!is_last<!bug, !bug>(y + 100)) return;
    y[102] = y[101];    // summed: other
    y[101] = 0;
}
template <bool bug> __global__ void for_all(const float* x, float* y) {    // one thread does it for its block
    __shared__ bool last;
    y[64 * blockIdx.x + threadIdx.x] = x[threadIdx.x];    // for_all: one
    if (!bug) __syncthreads();
    if (threadIdx.x == 0) last = is_last<true, true>(y + 1000);
    __syncthreads();
    if (!last) return;
    float sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += y[64 * b + threadIdx.x];    // for_all: other
    y[1001 + threadIdx.x] = sum;
}
template <bool bug> __global__ void each_fences(const float* x, float* y) {    // and then the block meets
    __shared__ bool last;
    y[64 * blockIdx.x + threadIdx.x] = x[threadIdx.x];    // each_fences: one
    if (!bug) __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = is_last<false, false>(y + 1000);
    __syncthreads();
    __threadfence();
    float sum = 0;
    for (int b = 0; last && b < int(gridDim.x); b++) sum += y[64 * b + threadIdx.x];    // each_fences: other
    if (last) y[1001 + threadIdx.x] = sum;
}
template <bool bug> __global__ void passed_on(const float*, float* y) {    // each block tells the next one to come
    if (threadIdx.x) return;
    int b = atomicAdd((int*)y + 10, 1);
    if (b) atomicAdd((int*)y + 10 + b, 1), __threadfence();
    if (b == 0) y[0] = 1;    // passed_on: one
    if (b == 3) y[1] = y[0];    // passed_on: other
    __threadfence();
    atomicAdd((int*)y + (bug && b == 1 ? 30 : 11 + b), 1);
}

template <bool bug> __global__ void within(const float*, float* y) {    // the last thread of its block
    y[64 * blockIdx.x + threadIdx.x] = 1;    // within: one
    if (!bug) __threadfence_block();
    if (atomicAdd((int*)y + 1000 + blockIdx.x, 1) != 63) return;
    __threadfence_block();
    float sum = 0;
    for (int i = 0; i < 64; i++) sum += y[64 * blockIdx.x + i];    // within: other
    y[1100 + blockIdx.x] = sum;
}
template <bool bug> __global__ void told_the_block(const float* x, float* y) {
    if (threadIdx.x) return;
    y[blockIdx.x] = x[blockIdx.x];    // told_the_block: one
    if (bug) __threadfence_block();
    else __threadfence();
    if (!is_last<false, true>(y + 100)) return;
    float sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += y[b];    // told_the_block: other
    y[101] = sum;
}
template <bool bug> __global__ void heard_of_the_block(const float* x, float* y) {
    if (threadIdx.x) return;
    y[blockIdx.x] = x[blockIdx.x];    // heard_of_the_block: one
    if (!is_last<true, false>(y + 100)) return;
    if (bug) __threadfence_block();
    else __threadfence();
    float sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += y[b];    // heard_of_the_block: other
    y[101] = sum;
}

template <bool bug> __global__ void fenced_twice(const float* x, float* y) {
    if (threadIdx.x) return;
    y[blockIdx.x] = x[blockIdx.x];    // fenced_twice: one
    if (!bug) __threadfence();
    __threadfence_block();
    if (!is_last<false, true>(y + 100)) return;
    __threadfence_block();
    float sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += y[b];    // fenced_twice: other
    y[101] = sum;
}
template <bool bug> __global__ void handed_on(const float*, float* y) {    // the last thread speaks for its block
    __shared__ int here;
    if (threadIdx.x == 0) here = 0;
    __syncthreads();
    y[64 * blockIdx.x + threadIdx.x] = 1;    // handed_on: one
    if (bug) __threadfence();
    else __threadfence_block();
    if (atomicAdd(&here, 1) != 63) return;
    if (bug) __threadfence_block();
    else __threadfence();
    if (!is_last<false, true>(y + 1100)) return;
    float sum = 0;
    for (int i = 0; i < 64 * int(gridDim.x); i++) sum += y[i];    // handed_on: other
    y[1101] = sum;
}
template <bool bug> __global__ void handed_in(const float* x, float* y) {    // thread 0 hears for its block
    int *ticket = (int*)y + 100, *here = (int*)y + 200 + blockIdx.x;
    if (threadIdx.x == 0) {
        y[blockIdx.x] = x[blockIdx.x];    // handed_in: one
        __threadfence();
        atomicAdd(ticket, 1);
        if (bug) __threadfence_block();
        else __threadfence();
    }
    if (atomicAdd(here, 1) != 63 || atomicAdd(ticket, 0) != int(gridDim.x)) return;
    __threadfence_block();
    float sum = 0;
    for (int b = 0; b < int(gridDim.x); b++) sum += y[b];    // handed_in: other
    y[101] = sum;
}

// ---- what nobody wrote, and what somebody wrote ---------------------------------------------------------------------
template <bool bug> __global__ void empty(const float*, float* y) {
    __shared__ float s[64];
    if (!bug || threadIdx.x != 5) s[threadIdx.x] = 1;
    __syncthreads();
    y[64 * blockIdx.x + threadIdx.x] = fmaxf(s[63 - threadIdx.x], 0.0f);    // empty: one, empty: other
}
template <bool bug> __global__ void empty_rest(const float*, float* y) {    // what a memset does not reach
    __shared__ float s[64], t[64];
    if (threadIdx.x < 4) std::memset(s + 16 * threadIdx.x, 0, bug ? 60 : 64);
    if (threadIdx.x == 4) memset(t, 0, sizeof t), memmove(t, t + 3, 40);
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x] + t[threadIdx.x];    // empty_rest: one, empty_rest: other
}
template <bool bug> __global__ void empty_dynamic(const float*, float* y) {
    int* s = dynamic_shared<int>();
    bug ? atomicAdd(s + threadIdx.x, 1) : atomicExch(s + threadIdx.x, 1);    // empty_dynamic: one, empty_dynamic: other
    y[threadIdx.x] = float(s[threadIdx.x]);
}
struct Best {    // 4 bytes of padding in the middle
    float value;
    int64_t index;
};
template <bool bug> __global__ void empty_member(const float*, float* y) {
    __shared__ Best s[64];
    s[threadIdx.x].value = 1;
    if (!bug) s[threadIdx.x].index = threadIdx.x;
    __syncthreads();
    Best best = s[63 - threadIdx.x];    // empty_member: one, empty_member: other
    y[threadIdx.x] = best.value + float(best.index);
}
template <bool bug> __global__ void empty_global(const float*, float* y) {
    if (!bug) y[64 + threadIdx.x] = 1;
    y[threadIdx.x] = y[64 + threadIdx.x];    // empty_global: one, empty_global: other
}
template <bool bug> __global__ void stale(const float*, float* y) {
    float v = __ldg(y + threadIdx.x);    // stale: one
    y[threadIdx.x + (bug ? 0 : 64)] = v + 1;    // stale: other
}
template <bool bug> __global__ void stale_later(const float*, float* y) {
    y[threadIdx.x] = 1;    // stale_later: one
    y[threadIdx.x + 64] = bug ? __ldg(y + threadIdx.x) : y[threadIdx.x];    // stale_later: other
}
template <bool bug> __global__ void stale_wide(const float*, float* y) {    // one of four numbers was written
    if (threadIdx.x % 4 == 3) y[threadIdx.x] = 1;    // stale_wide: one
    __syncthreads();
    if (threadIdx.x >= 16) return;
    float4 v = __ldg((const float4*)(y + (bug ? 0 : 64)) + threadIdx.x);    // stale_wide: other
    y[128 + threadIdx.x] = v.x + v.w;
}

// ---- how long it takes ----------------------------------------------------------------------------------------------
__global__ void crowd_fences(float* y) {    // all threads of all blocks
    __shared__ bool last;
    if (threadIdx.x == 0) y[blockIdx.x] = 1;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd((int*)y + 3000, 1) == int(gridDim.x) - 1;
    __syncthreads();
    __threadfence();
    if (last) y[1000 + threadIdx.x] = y[threadIdx.x % gridDim.x];
}

}    // namespace

extern "C" int run_fences(int64_t blocks, float* y) {
    return launch(crowd_fences, dim3(unsigned(blocks)), dim3(256), 0, nullptr, y);
}
#define RUN(kernel, blocks, threads)                                                         \
    extern "C" int run_##kernel(int bug, const float* x, float* y) {                         \
        return bug ? launch(kernel<true>, dim3(blocks), dim3(threads), 256, nullptr, x, y)   \
                   : launch(kernel<false>, dim3(blocks), dim3(threads), 256, nullptr, x, y); \
    }
RUN(reversed, 1, 64)
RUN(refilled, 1, 64)
RUN(tail, 1, 64)
RUN(halves, 1, 32)
RUN(chain, 1, 32)
RUN(shuffled, 1, 32)
RUN(counted, 1, 64)
RUN(zeroed, 1, 64)
RUN(bytes, 1, 64)
RUN(neighbour, 1, 64)
RUN(matrices, 1, 64)
RUN(unwaited, 1, 64)
RUN(late, 1, 64)
RUN(moved, 1, 64)
RUN(assigned, 1, 64)
RUN(through, 1, 64)
RUN(crowd, 1, 64)
RUN(narrow, 1, 64)
RUN(before, 4, 32)
RUN(one_cell, 4, 32)
RUN(zeroed_bins, 1, 64)
RUN(bins, 4, 64)
RUN(untold, 4, 32)
RUN(unheard, 4, 32)
RUN(guessed, 4, 32)
RUN(summed, 4, 32)
RUN(for_all, 4, 64)
RUN(each_fences, 4, 64)
RUN(passed_on, 4, 32)
RUN(within, 2, 64)
RUN(told_the_block, 4, 32)
RUN(heard_of_the_block, 4, 32)
RUN(fenced_twice, 4, 32)
RUN(handed_on, 4, 64)
RUN(handed_in, 4, 64)
RUN(empty, 2, 64)
RUN(empty_rest, 1, 64)
RUN(empty_dynamic, 1, 64)
RUN(empty_member, 1, 64)
RUN(empty_global, 1, 64)
RUN(stale, 1, 64)
RUN(stale_later, 1, 64)
RUN(stale_wide, 1, 64)
