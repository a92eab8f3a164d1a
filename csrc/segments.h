// Sums over the rows of each code, once the rows are sorted by their code.
// Rooms: kernels/code_stats.py, kernels/quantize.py
//
//   order   | 3  8  9 | 0 | 1  2  4  5  6  7 | ...     rows order[start[k]] .. order[start[k + 1] - 1] have code k,
//   code      0       1          3                     ascending
//
// A run is added up as 16 sums: of its rows 0, 16, 32, ..., of its rows 1, 17, 33, ..., and so on. These are added in
// order. So the bits do not depend on who adds them: a warp alone, which has four rows on their way at a time, a short
// run; the warps of a block together, two sums each, a long one.
#pragma once
#include "gpu.h"

constexpr int PARTS = 16, WARPS = 8;    // WARPS of a block; each has PARTS / WARPS sums of a long run
constexpr int ALONE = 256;              // rows that one warp adds up
constexpr int MANY = 2048;              // tasks from which on a block takes WARPS of them: it fills the largest cards

// The sums of value(k, n, d) over the rows n of each code k, for block (x, y): codes k = codes x .. codes (x + 1) - 1
// and columns d = 32 y .. 32 y + 31. One lane calls finish(k, d, sum). codes: WARPS, or 1, of a run of any length.
template <class Value, class Finish>
__device__ __forceinline__ void add_rows(const int64_t* order, const int64_t* start, int64_t K, int64_t D, int codes,
                                         Value value, Finish finish) {
    __shared__ double part[PARTS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t k0 = blockIdx.x * int64_t(codes), d = blockIdx.y * int64_t(32) + lane;
    auto long_run = [&](int c) {
        return c < codes && k0 + c < K && (codes == 1 || start[k0 + c + 1] - start[k0 + c] > ALONE);
    };
    unsigned shared = __ballot_sync(0xffffffffu, long_run(lane));    // bit c: the runs that all warps add up
    int64_t k = k0 + warp;
    if (warp < codes && k < K && d < D && !(shared >> warp & 1)) {
        double sum[PARTS] = {};
        int64_t first = start[k], last = start[k + 1];
        for (int64_t i = first; i < last; i += PARTS)
#pragma unroll
            for (int p = 0; p < PARTS; p += 4) {
                if (i + p >= last) break;
                double v[4];    // behind the end the last row again: the loads need not wait for a comparison
#pragma unroll
                for (int j = 0; j < 4; j++) v[j] = value(k, order[i + p + j < last ? i + p + j : last - 1], d);
#pragma unroll
                for (int j = 0; j < 4; j++) sum[p + j] += i + p + j < last ? v[j] : 0.0;
            }
#pragma unroll
        for (int p = 1; p < PARTS; p++) sum[0] += sum[p];
        finish(k, d, sum[0]);
    }
    for (int c = 0; shared >> c; c++) {    // the same for all threads
        if (!(shared >> c & 1)) continue;
        k = k0 + c;
        int64_t last = start[k + 1];
        for (int p = warp; p < PARTS; p += WARPS) {
            double sum = 0;
            for (int64_t i = start[k] + p; d < D && i < last; i += PARTS) sum += value(k, order[i], d);
            part[p][lane] = sum;
        }
        __syncthreads();
        if (warp == 0 && d < D) {
            double sum = part[0][lane];
            for (int p = 1; p < PARTS; p++) sum += part[p][lane];
            finish(k, d, sum);
        }
        __syncthreads();    // part is read before it is written again
    }
}

inline int codes_of_block(int64_t K, int64_t D) { return K * ceil_div(D, 32) < MANY ? 1 : WARPS; }
inline dim3 segment_blocks(int64_t K, int64_t D) {
    return dim3(ceil_div(K, codes_of_block(K, D)), D ? ceil_div(D, 32) : 1);
}
