// The search of csrc/nearest_code.cpp that reads the codes as they lie, for each instruction set: of few rows, and of
// those that a screen cannot decide. Proof: docs/exact-argmin.md, "Without a screen". Room: kernels/nearest_code.py
#ifndef SET
#include <algorithm>
#include "divide.h"
#include "integers.h"
#include "nearest_code_problem.h"
#define EACH_SET "nearest_code_few.h"
#include "each_set.h"

#else
#include "nearest_code_book.h"

// ---- in double ------------------------------------------------------------------------------------------------------

// ||x - y||^2
static double squared_distance(const double* x, const double* y, int64_t P) {
    vec<double> sums = {};
    for (int64_t d = 0; d < P; d += LANES<double>) {
        vec<double> difference = load_aligned(x + d) - load_aligned(y + d);
        sums += difference * difference;
    }
    return total<double>(sums);
}

// The index of rows [n0, n1): sums in double, in any order, choose the codes that must be measured
static void search_in_double(const Problem& p, const Book&, int64_t n0, int64_t n1, Scratch& s) {
    const int64_t P = whole(p.D, LANES<double>);
    const double grow = 1 + (p.D + 4) * 0x1p-50, tiny = p.D * 0x1p-1072;
    double* y = s.wide + FEW * P;
    for (; n0 < n1; n0 += FEW) {
        int R = int(std::min<int64_t>(FEW, n1 - n0));
        Nearest nearest[FEW];
        double limit[FEW];
        with_dtype(p.z_dtype, [&](auto t) {
            for (int r = 0; r < R; r++)
                widen((const decltype(t)*)p.z + (n0 + r) * p.D, p.D, P, s.wide + r * P), limit[r] = INFINITY;
        });
        for (int64_t k = 0; k < p.K; k++) {
            with_dtype(p.e_dtype, [&](auto t) { widen((const decltype(t)*)p.e + k * p.D, p.D, P, y); });
            for (int r = 0; r < R; r++) {
                double sum = squared_distance(s.wide + r * P, y, P);
                if (!(sum <= limit[r])) continue;
                measure(p, n0 + r, &k, 1, nearest[r]);
                if (sum < 0x1p1020) limit[r] = std::min(limit[r], sum * grow + tiny);    // (C8)
            }
        }
        for (int r = 0; r < R; r++) p.index[n0 + r] = nearest[r].k;
    }
}

// ---- in float, codes of float32 as they lie -------------------------------------------------------------------------

// sums[r] = ||x_r - e_k||^2 of the L codes that lie at e, for R rows that lie `stride` apart
template <int R>
static void squared_distances(const float* x, int64_t stride, const float* e, int64_t D, vec<float> (&sums)[R]) {
    constexpr int CODES = SET == AVX512 ? 8 : 4;    // at a time: as many sums as there are registers for
    vec<float> each[R][L];
#pragma GCC unroll 4
    for (int first = 0; first < L; first += CODES, e += CODES * D) {
        vec<float> part[R][CODES] = {};
        auto add = [&](int64_t d, int64_t count) __attribute__((always_inline)) {
            vec<float> v[R];
#pragma GCC unroll 2
            for (int r = 0; r < R; r++) v[r] = load_aligned(x + r * stride + d);
#pragma GCC unroll 8
            for (int l = 0; l < CODES; l++) {
                const vec<float> code = load(e + l * D + d, count);
#pragma GCC unroll 2
                for (int r = 0; r < R; r++) part[r][l] = fused(v[r] - code, v[r] - code, part[r][l]);
            }
        };
        int64_t d = 0;
        for (; d + L <= D; d += L) add(d, L);
        if (d < D) add(d, D - d);
#pragma GCC unroll 2
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int l = 0; l < CODES; l++) each[r][first + l] = part[r][l];
    }
    for (int r = 0; r < R; r++) sums[r] = each_total(each[r]);
}

// Lowers the thresholds of R rows by codes [k0, k1), and keeps those that may be nearest. sums: room for R of each code
template <int R> static void sift_in_float(const Problem& p, Row* rows, const float* x, int64_t stride, int64_t k0,
                                           int64_t k1, float* sums) {
    const float grow = 1 + (p.D + 8) * 0x1p-22f, tiny = p.D * 0x1p-146f;    // (C9)
    auto first = [&](int64_t k) { return std::min(k, p.K - L); };           // the last L codes may come again
    vec<float> low[R];
    for (int r = 0; r < R; r++) low[r] = INFINITY - vec<float>{};
    for (int64_t k = k0; k < k1; k += L) {
        vec<float> of_codes[R];
        squared_distances<R>(x, stride, (const float*)p.e + first(k) * p.D, p.D, of_codes);
        for (int r = 0; r < R; r++) {
            store_aligned(sums + r * whole(k1 - k0, L) + (k - k0), of_codes[r]);
            low[r] = least(of_codes[r], low[r]);    // the same where a sum is NaN
        }
    }
    for (int r = 0; r < R; r++, sums += whole(k1 - k0, L)) {
        Row& row = rows[r];
        row.threshold = std::min(row.threshold, lowest<float>(low[r]) * grow + tiny);
        const vec<float> threshold = row.threshold - vec<float>{};
        for (int64_t k = k0; k < k1 && row.threshold < INFINITY; k += L)
            for (uint32_t lanes = at_most(load_aligned(sums + (k - k0)), threshold); lanes; lanes &= lanes - 1) {
                const int l = __builtin_ctz(lanes);
                row.make_room(p, 1);
                row.code[row.kept] = first(k) + l, row.lower[row.kept++] = sums[k - k0 + l];
            }
    }
}

// The index of rows [n0, n1), K >= L: sums in float, in any order, choose the codes that must be measured
static void search_in_float(const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {
    const int64_t stride = whole(p.D, L), R = n1 - n0;
    // codes that stay in the second cache while all rows meet them
    const int64_t few = std::min(s.bounds / (2 * L) * L, whole(1 + 32768 / (1 + p.D), L));
    for (int64_t r = 0; r < R; r++) {
        with_dtype(p.z_dtype, [&](auto t) {
            widen((const decltype(t)*)p.z + (n0 + r) * p.D, p.D, stride, s.x + r * stride);
        });
        s.rows[r].begin(n0 + r, 0);
    }
    for (int64_t k0 = 0; k0 < p.K; k0 += few) {
        const int64_t k1 = std::min(p.K, k0 + few);
        int64_t r = 0;
        for (; r + 2 <= R; r += 2) sift_in_float<2>(p, s.rows + r, s.x + r * stride, stride, k0, k1, s.low);
        if (r < R) sift_in_float<1>(p, s.rows + r, s.x + r * stride, stride, k0, k1, s.low);
    }
    for (int64_t n = n0; n < n1; n++)
        if (s.rows[n - n0].threshold <= FLOAT_REACHES) p.index[n] = s.rows[n - n0].finish(p);
        else search_in_double(p, book, n, n + 1, s);
}

// The index of rows [n0, n1). It takes the first of s.rows
static void search_directly(const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {
    if (p.e_dtype != 0 || p.z_dtype == 3 || p.K < L || p.D > WIDEST) return search_in_double(p, book, n0, n1, s);
    search_in_float(p, book, n0, n1, s);
}
#endif
