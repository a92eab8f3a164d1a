// Sums over the rows of each code on a CPU, once the rows are sorted by their code: csrc/segments.h for native kernels.
// Rooms: kernels/code_stats.py, kernels/quantize.py
//
//   order   | 3  8  9 | 0 | 1  2  4  5  6  7 | ...     row order[i], for i from end[k-1] to end[k], has code k,
//   code      0       1          3                     ascending
//
// A kernel includes it in parts 1 and 2 (each_set.h). A task adds up some codes, a strip of columns at a time, in
// double and in the order of the rows: results depend on the data alone. An index outside 0 .. K-1 adds nothing.
#ifndef SET
#include <algorithm>
#include <type_traits>
#include "threads.h"

namespace {

constexpr int64_t AHEAD = 32;    // rows that are fetched before they are needed: they lie far apart
constexpr int64_t LINE = 16;     // columns that one fetch brings, of floats

template <class T> struct RowsOfCodes {
    const T* z;                      // (N, D)
    const int64_t* index;            // (N)
    const int64_t *order, *end;      // (rows), (K) or null
    int64_t rows;                    // how many have an index in 0 .. K-1
    T* total;                        // (K, D)
    int64_t K, D;
    int64_t most;    // rows of one code

    int64_t start(int64_t k) const {
        if (end) return k ? end[k - 1] : 0;
        return std::lower_bound(order, order + rows, k, [&](int64_t n, int64_t k) { return index[n] < k; }) - order;
    }
    int64_t end_of(int64_t k, int64_t start) const {
        if (end) return end[k];
        while (start < rows && index[order[start]] == k) start++;
        return start;
    }
};

// By counting, with `order` for N numbers and `end` for K
template <class T, class Count>
RowsOfCodes<T> sorted(const T* z, const int64_t* index, int64_t* order, Count* end, T* total, int64_t N, int64_t K,
                      int64_t D) {
    int64_t rows = 0, most = 0;
    auto known = [&](int64_t k) { return k >= 0 && k < K; };
    std::fill(end, end + K, Count(0));
    for (int64_t n = 0; n < N; n++)
        if (known(index[n])) end[index[n]]++;
    for (int64_t k = 0; k < K; k++) {
        const int64_t count = end[k];
        end[k] = Count(rows), rows += count, most = std::max(most, count);
    }
    for (int64_t n = 0; n < N; n++)
        if (known(index[n])) order[end[index[n]]++] = n;    // from its start, end[k] grows to its end
    if constexpr (std::is_same_v<Count, int64_t>) return {z, index, order, end, rows, total, K, D, most};
    else return {z, index, order, nullptr, rows, total, K, D, most};
}

// The same with `order` alone: by comparing where codes are so many that their counts take longer; else the total, of
// D >= 1 numbers a code, is memory for the counts until sums are written there. N is at most 2^32 - 1
template <class T>
RowsOfCodes<T> sorted(const T* z, const int64_t* index, int64_t* order, T* total, int64_t N, int64_t K, int64_t D) {
    static_assert(sizeof(uint32_t) <= sizeof(T));
    if (K / 32 <= N) return sorted(z, index, order, (uint32_t*)total, total, N, K, D);
    int64_t rows = 0, most = 0;
    for (int64_t n = 0; n < N; n++)
        if (index[n] >= 0 && index[n] < K) order[rows++] = n;
    std::sort(order, order + rows, [&](int64_t a, int64_t b) {    // stable, as no two are equal
        return index[a] != index[b] ? index[a] < index[b] : a < b;
    });
    for (int64_t i = 0, start = 0; i < rows; most = std::max(most, ++i - start))
        if (index[order[i]] != index[order[start]]) start = i;
    return {z, index, order, nullptr, rows, total, K, D, most};
}

// add(k0, k1, d0, d1) for all codes and columns. Group g of codes has those that start at row g R or later. Where one
// code has more rows than a thread's share, the threads share the columns, too
template <class T, class F> void each_group(const RowsOfCodes<T>& p, int threads, F add) {
    const int64_t R = rows_of_a_task(p.D), groups = std::max<int64_t>(1, ceil_div(p.rows, R));
    const int64_t lines = ceil_div(p.D, LINE);
    const int64_t width = LINE * std::max<int64_t>(1, p.most * threads > p.rows ? ceil_div(lines, threads) : lines);
    const int64_t strips = ceil_div(p.D, width);
    auto first = [&](int64_t group) {
        if (group == groups) return p.K;
        int64_t low = 0, high = p.K;
        while (low < high) {
            int64_t k = low + (high - low) / 2;
            if (p.start(k) < group * R) low = k + 1;
            else high = k;
        }
        return low;
    };
    parallel(groups * strips, worth_waking(threads, p.rows * p.D, 0.15), [&](int64_t task, int) {
        int64_t group = task / strips, d = task % strips * width;
        add(first(group), first(group + 1), d, std::min(p.D, d + width));
    });
}

}    // namespace

#else

// Columns d ... d+WIDTH-1 of total_k, their sums in registers: of term(k, n, d, at) over the rows n of the code, which
// are order[i0] ... order[i1-1], where at(p) reads at p as many doubles as are added at once
template <int WIDTH, class T, class Term>
static inline void add_strip(const RowsOfCodes<T>& p, int64_t k, int64_t i0, int64_t i1, int64_t d, Term term) {
    constexpr int L = LANES<double>;
    vec<double> sum[WIDTH / L] = {};
    for (int64_t i = i0; i < i1; i++) {
        const T* later = p.z + p.order[std::min(i + AHEAD, p.rows - 1)] * p.D + d;
        for (int byte = 0; byte < WIDTH * int(sizeof(T)); byte += 64) __builtin_prefetch((const char*)later + byte);
#pragma GCC unroll 8
        for (int v = 0; v < WIDTH / L; v++)
            sum[v] += term(k, p.order[i], d + v * L, [](const T* numbers) { return wide(numbers); });
    }
#pragma GCC unroll 8
    for (int v = 0; v < WIDTH / L; v++) store_wide(p.total + k * p.D + d + v * L, sum[v]);
}

// The same for as many strips as there are before d1, then for narrower ones -> the first column that is left
template <int WIDTH, class T, class Term>
static inline int64_t add_strips(const RowsOfCodes<T>& p, int64_t k, int64_t i0, int64_t i1, int64_t d, int64_t d1,
                                 Term term) {
    for (; d + WIDTH <= d1; d += WIDTH) add_strip<WIDTH>(p, k, i0, i1, d, term);
    if constexpr (WIDTH > 8) return add_strips<WIDTH / 2>(p, k, i0, i1, d, d1, term);
    return d;
}

template <class T, class Term>
static inline void add_column(const RowsOfCodes<T>& p, int64_t k, int64_t i0, int64_t i1, int64_t d, Term term) {
    double sum = 0;
    for (int64_t i = i0; i < i1; i++)
        sum += term(k, p.order[i], d, [](const T* number) { return double(*number); });
    p.total[k * p.D + d] = T(sum);
}

// Columns d0 ... d1-1 of codes k0 ... k1-1
template <class T, class Term>
static inline void add_codes(const RowsOfCodes<T>& p, int64_t k0, int64_t k1, int64_t d0, int64_t d1, Term term) {
    constexpr int WIDEST = 8 * LANES<double>;    // as many sums as there are registers for
    int64_t i0 = k0 < k1 ? p.start(k0) : 0;
    for (int64_t k = k0; k < k1; k++) {
        const int64_t i1 = p.end_of(k, i0);
        for (int64_t d = add_strips<WIDEST>(p, k, i0, i1, d0, d1, term); d < d1; d++)
            add_column(p, k, i0, i1, d, term);
        i0 = i1;
    }
}

#endif
