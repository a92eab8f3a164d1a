// The rows of each code: count_k = number of rows with index k, total_k = sum of those rows.
// Room: kernels/code_stats.py
//
//   rung naive      one thread a (code, column), which reads the index of every row: N requests of each warp
//   rung segments   the rows, sorted by their code, are one run for each code, and nobody reads all indices: 15
//                   requests of a warp, not 2082 (N = 2048, K = D = 64); a warp adds up a short run, four rows at a
//                   time, without a barrier; a block a long one
//
// z (N, D), index (N,), count (K,), total (K, D) of type R: float, or double for double z. Sums run in double, in an
// order that depends on the data alone; there is no atomic addition. An index outside 0 .. K-1 adds nothing.

#include "segments.h"

constexpr int THREADS = 256;

template <class Z, class R>
__global__ void stats_naive(const Z* z, const int64_t* index, int64_t* count, R* total, int64_t N, int64_t K,
                            int64_t D) {
    int64_t columns = D ? D : 1;    // without columns there are counts still
    int64_t i = blockIdx.x * int64_t(THREADS) + threadIdx.x, k = i / columns, d = i % columns;
    if (k >= K) return;
    double sum = 0;
    int64_t rows = 0;
    for (int64_t n = 0; n < N; n++)
        if (index[n] == k) {
            if (d < D) sum += to_double(z[n * D + d]);
            rows++;
        }
    if (d < D) total[i] = R(sum);
    if (d == 0) count[k] = rows;
}

// csrc/segments.h says which block and warp adds which rows
template <class Z, class R>
__global__ void stats_segments(const Z* z, const int64_t* order, const int64_t* start, int64_t* count, R* total,
                               int64_t K, int64_t D, int codes) {
    int64_t k = blockIdx.x * int64_t(codes) + threadIdx.x;
    if (threadIdx.x < codes && k < K && blockIdx.y == 0) count[k] = start[k + 1] - start[k];
    add_rows(
        order, start, K, D, codes, [&](int64_t, int64_t n, int64_t d) { return to_double(z[n * D + d]); },
        [&](int64_t k, int64_t d, double sum) { total[k * D + d] = R(sum); });
}

// ---- launchers ------------------------------------------------------------------------------------------------------

extern "C" int code_stats_naive(int dtype, const void* z, const int64_t* index, int64_t* count, void* total, int64_t N,
                                int64_t K, int64_t D, void* stream) {
    return with_dtype(dtype, [&](auto zero) {
        using Z = decltype(zero);
        using R = real<Z>;
        return launch(stats_naive<Z, R>, dim3(ceil_div(K * (D ? D : 1), THREADS)), dim3(THREADS), 0, stream,
                      (const Z*)z, index, count, (R*)total, N, K, D);
    });
}

extern "C" int code_stats_segments(int dtype, const void* z, const int64_t* order, const int64_t* start, int64_t* count,
                                   void* total, int64_t K, int64_t D, void* stream) {
    return with_dtype(dtype, [&](auto zero) {
        using Z = decltype(zero);
        using R = real<Z>;
        return launch(stats_segments<Z, R>, segment_blocks(K, D), dim3(32 * WARPS), 0, stream,
                      (const Z*)z, order, start, count, (R*)total, K, D, codes_of_block(K, D));
    });
}
