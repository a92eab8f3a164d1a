// The rows of each code on a CPU: count_k = number of rows with index k, total_k = sum of those rows.
// Room: kernels/code_stats.py
//
// As on a GPU, a stable sort puts the rows of a code side by side; csrc/cpu/rows_of_codes.h says which task adds which.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include "cpu/numbers.h"
#include "cpu/rows_of_codes.h"

#define EACH_SET "../code_stats.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set
#include "cpu/rows_of_codes.h"

template <class T> static void add(const RowsOfCodes<T>& p, int64_t k0, int64_t k1, int64_t d0, int64_t d1) {
    add_codes(p, k0, k1, d0, d1,
              [&](int64_t, int64_t n, int64_t d, auto at) { return at(p.z + n * p.D + d); });
}

#else
// ---- the entry point ------------------------------------------------------------------------------------------------

// dtype: 0 float32, 3 float64. order has room for N int64_t. Returns 0, or 1 for a bad argument.
extern "C" int code_stats_cpu(int dtype, const void* z, const void* index, void* count, void* total, void* order,
                              int64_t N, int64_t K, int64_t D, int threads) {
    if (N < 0 || K < 1 || D < 0 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        int64_t* end = (int64_t*)count;    // until all is added
        const auto p = sorted((const T*)z, (const int64_t*)index, (int64_t*)order, end, (T*)total, N, K, D);
        const auto add = BEST(add<T>);
        each_group(p, threads, [&](int64_t k0, int64_t k1, int64_t d0, int64_t d1) { add(p, k0, k1, d0, d1); });
        for (int64_t k = K - 1; k > 0; k--) end[k] -= end[k - 1];
    });
}
#endif
