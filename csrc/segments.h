// Sums over the rows of each code, once the rows are sorted by their code.
// Rooms: kernels/code_stats.py, kernels/quantize.py
//
//   order   | 3  8  9 | 0 | 1  2  4  5  6  7 | ...     rows order[start[k]] .. order[start[k + 1] - 1] have code k,
//   code      0       1          3                     ascending
#pragma once
#include "gpu.h"

constexpr int WARPS = 16;    // of a block, which share the rows of one code

// The sum of value(n, d) over the rows n of code k, for block (k, y) and its columns d = 32 y .. 32 y + 31. Warp w
// takes every WARPS-th row, ascending; then the warps' sums are added in order. The first warp calls finish(d, sum).
template <class Value, class Finish>
__device__ __forceinline__ void add_rows(const int64_t* order, const int64_t* start, int64_t D, Value value,
                                         Finish finish) {
    __shared__ double part[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t k = blockIdx.x, d = blockIdx.y * int64_t(32) + lane;
    double sum = 0;
    for (int64_t i = start[k] + warp; d < D && i < start[k + 1]; i += WARPS) sum += value(order[i], d);
    part[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || d >= D) return;
    for (int w = 1; w < WARPS; w++) sum += part[w][lane];
    finish(d, sum);
}

inline dim3 segment_blocks(int64_t K, int64_t D) { return dim3(K, D ? ceil_div(D, 32) : 1); }
