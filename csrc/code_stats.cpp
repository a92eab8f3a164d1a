// The rows of each code on a CPU: count_k = number of rows with index k, total_k = sum of those rows.
// Room: kernels/code_stats.py
//
// As on a GPU, a stable sort (by counting) puts the rows of a code side by side: row order[i], for i from end[k-1] to
// end[k]. A task adds up some codes, a strip of columns at a time, in double and in the order of the rows: results
// depend on the data alone. An index outside 0 .. K-1 adds nothing.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <algorithm>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

constexpr int64_t STRIP = 32;    // columns at a time
constexpr int64_t AHEAD = 8;     // rows that are fetched before they are needed: they lie far apart

template <class T> struct Problem {
    const T* z;                      // (N, D)
    const int64_t *order, *end;      // (rows), (K)
    int64_t rows;
    T* total;                        // (K, D)
    int64_t K, D;
};

inline int64_t start(const int64_t* end, int64_t k) { return k ? end[k - 1] : 0; }

}    // namespace

#define EACH_SET "../code_stats.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set

// Columns d ... d+WIDTH-1 of total_k, their sums in registers
template <int WIDTH, class T> static inline void strip(const Problem<T>& p, int64_t k, int64_t d) {
    constexpr int L = LANES<double>;
    vec<double> sum[WIDTH / L] = {};
    for (int64_t i = start(p.end, k); i < p.end[k]; i++) {
        const T *z = p.z + p.order[i] * p.D + d, *later = p.z + p.order[std::min(i + AHEAD, p.rows - 1)] * p.D + d;
        for (int byte = 0; byte < WIDTH * int(sizeof(T)); byte += 64) __builtin_prefetch((const char*)later + byte);
        for (int v = 0; v < WIDTH / L; v++) sum[v] += wide(z + v * L);
    }
    for (int v = 0; v < WIDTH / L; v++) store_wide(p.total + k * p.D + d + v * L, sum[v]);
}

template <class T> static inline void column(const Problem<T>& p, int64_t k, int64_t d) {
    double sum = 0;
    for (int64_t i = start(p.end, k); i < p.end[k]; i++) sum += double(p.z[p.order[i] * p.D + d]);
    p.total[k * p.D + d] = T(sum);
}

template <class T> static void add(const Problem<T>& p, int64_t k0, int64_t k1, int64_t d0, int64_t d1) {
    for (int64_t k = k0; k < k1; k++) {
        int64_t d = d0;
        for (; d + STRIP <= d1; d += STRIP) strip<STRIP>(p, k, d);
        for (; d + 8 <= d1; d += 8) strip<8>(p, k, d);
        for (; d < d1; d++) column(p, k, d);
    }
}

#else
// ---- the sort, the tasks and the entry point ------------------------------------------------------------------------
namespace {

// -> how many indices lie in 0 .. K-1
inline int64_t sort(const int64_t* index, int64_t N, int64_t K, int64_t* count, int64_t* order, int64_t* end) {
    auto known = [&](int64_t k) { return k >= 0 && k < K; };
    std::fill(count, count + K, 0);
    for (int64_t n = 0; n < N; n++)
        if (known(index[n])) count[index[n]]++;
    int64_t rows = 0;
    for (int64_t k = 0; k < K; rows += count[k++]) end[k] = rows;
    for (int64_t n = 0; n < N; n++)
        if (known(index[n])) order[end[index[n]]++] = n;    // from its start, end[k] grows to its end
    return rows;
}

// Group g of codes has those that start at row g R or later. Few groups, as where one code has most rows, share each
// strip of columns, too
template <class T> void add_all(const Problem<T>& p, int threads) {
    const int64_t R = rows_of_a_task(p.D), groups = std::max<int64_t>(1, ceil_div(p.rows, R));
    const int64_t width = groups < 4 * threads ? STRIP : std::max<int64_t>(1, p.D), strips = ceil_div(p.D, width);
    auto first = [&](int64_t group) {
        if (group == groups) return p.K;
        int64_t low = 0, high = p.K;
        while (low < high) {
            int64_t k = low + (high - low) / 2;
            if (start(p.end, k) < group * R) low = k + 1;
            else high = k;
        }
        return low;
    };
    auto add = BEST(add<T>);
    parallel(groups * strips, worth_waking(threads, p.rows * p.D), [&](int64_t task, int) {
        int64_t group = task / strips, d = task % strips * width;
        add(p, first(group), first(group + 1), d, std::min(p.D, d + width));
    });
}

}    // namespace

// Bytes of `space`: of any number of threads
extern "C" int64_t code_stats_cpu_workspace(int64_t N, int64_t K, int) { return (N + K) * int64_t(sizeof(int64_t)); }

// dtype: 0 float32, 3 float64. Returns 0, or 1 for a bad argument.
extern "C" int code_stats_cpu(int dtype, const void* z, const void* index, void* count, void* total, void* space,
                              int64_t N, int64_t K, int64_t D, int threads) {
    if (N < 0 || K < 1 || D < 0 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        int64_t *order = (int64_t*)space, *end = order + N;
        int64_t rows = sort((const int64_t*)index, N, K, (int64_t*)count, order, end);
        add_all(Problem<T>{(const T*)z, order, end, rows, (T*)total, K, D}, threads);
    });
}
#endif
