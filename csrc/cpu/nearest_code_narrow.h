// The float screen of csrc/nearest_code.cpp, for each instruction set: of few products a row, where integers would take
// longer to make than to multiply. Proof: docs/exact-argmin.md, "The CPU screen in float".
// Room: kernels/nearest_code.py
//
// Rows of z lie in the lanes of vectors, so nothing is added up across lanes: each lane finds the group of codes with
// the least score, and the next least score of a group. Where these lie farther apart than both may err, the nearest
// code is in this group; else it is among all codes whose scores lie as near. decide finds it there.
#ifndef SET
#include <algorithm>
#include <cmath>
#include "divide.h"
#include "integers.h"
#include "nearest_code_problem.h"
#define EACH_SET "nearest_code_narrow.h"
#include "each_set.h"

#else
#include "nearest_code_few.h"

constexpr int ACROSS = 2;                       // vectors of rows that share the numbers of a code
constexpr int CODES = SET == AVX512 ? 8 : 4;    // at a time: as many scores as there are registers for
constexpr int PANEL = ACROSS * L;               // rows, or codes, whose columns lie side by side

// x[d] = column d of PANEL vectors from n on, less the centre; the last of `count` stands for those beyond it
template <class T> static void columns_of(const T* z, int64_t n, int64_t count, const Book& book, int64_t D,
                                          Scratch& s, float* x) {
    const int64_t stride = 2 * book.S;
    float* rows = s.rows_in_float;
    for (int r = 0; r < PANEL; r++) centred(z + std::min(n + r, count - 1) * D, book, D, rows + r * stride);
    for (int r = 0; r < PANEL; r += L)
        for (int64_t d = 0; d < D; d += L)
            transpose((int32_t*)rows + r * stride + d, stride, (int32_t*)x + d * PANEL + r, PANEL, D - d);
}

// The columns of codes k ... , which begin a vector
static float* columns_of_codes(const Book& book, int64_t D, int64_t k) {
    return book.y + k / PANEL * PANEL * D + k % PANEL;
}

// ||x||^2 of the L vectors whose columns these are
static vec<float> squares_of(const float* x, int64_t D) {
    vec<float> square = {};
    for (int64_t d = 0; d < D; d++) square += load_aligned(x + d * PANEL) * load_aligned(x + d * PANEL);
    return square;
}

// Packs codes [tile TILE, (tile + 1) TILE) into book: panels of columns, and half the squared norms
template <class T> static void pack_floats(const Problem& p, const Book& book, int64_t tile, Scratch& s) {
    ints lane;
    for (int l = 0; l < L; l++) lane[l] = l;
    vec<float> longest = {};
    for (int64_t k = tile * TILE; k < (tile + 1) * TILE; k += L) {
        float* y = columns_of_codes(book, p.D, k);
        if (k % PANEL == 0) columns_of((const T*)p.e, k, p.K, book, p.D, s, y);
        const vec<float> square = squares_of(y, p.D);
        // others are NaN, or so far that they cannot be nearest to any screened row (C7), or no codes
        const ints near = (square <= FAR_CODE) & (lane < int32_t(std::min<int64_t>(L, p.K - k)));
        store_aligned(book.half + k, near ? 0.5f * square : INFINITY - vec<float>{});
        for (int64_t d = 0; d < p.D; d++, y += PANEL) store_aligned(y, near ? load_aligned(y) : vec<float>{});
        longest = most(longest, near ? square : vec<float>{});
    }
    book.residual[tile] = -lowest<float>(-longest);
}

struct Two {    // scores of groups of codes, for each row of a vector
    vec<float> least_score = INFINITY - vec<float>{}, next = least_score;
    ints code = {};
    void offer(vec<float> score, int64_t k) {
        code = score < least_score ? int32_t(k) - ints{} : code;
        next = least(next, most(score, least_score));
        least_score = least(score, least_score);
    }
};

template <int GROUP> static inline vec<float> least_of(const vec<float> (*score)[ACROSS], int a) {
    if constexpr (GROUP == 1) return score[0][a];
    else return least(least_of<GROUP / 2>(score, a), least_of<GROUP / 2>(score + GROUP / 2, a));
}

// Offers all codes to the rows of x, so many as a group: score_k = half_k - x . y_k
template <int GROUP> static void offer_all(const Problem& p, const Book& book, const float* x, Two (&two)[ACROSS]) {
    for (int64_t k = 0; k < p.K; k += CODES) {
        vec<float> score[CODES][ACROSS];
#pragma GCC unroll 8
        for (int c = 0; c < CODES; c++)
#pragma GCC unroll 2
            for (int a = 0; a < ACROSS; a++) score[c][a] = book.half[k + c] - vec<float>{};
        const float* y = columns_of_codes(book, p.D, k);
        for (int64_t d = 0; d < p.D; d++, y += PANEL) {
#pragma GCC unroll 8
            for (int c = 0; c < CODES; c++) {
                const vec<float> number = y[c] - vec<float>{};
#pragma GCC unroll 2
                for (int a = 0; a < ACROSS; a++)
                    score[c][a] = fused_minus(load_aligned(x + d * PANEL + a * L), number, score[c][a]);
            }
        }
#pragma GCC unroll 8
        for (int c = 0; c < CODES; c += GROUP)
#pragma GCC unroll 2
            for (int a = 0; a < ACROSS; a++) two[a].offer(least_of<GROUP>(score + c, a), k + c);
    }
}

// The index of row n, whose columns lie at x: of codes k0 ... k1-1, a whole number of vectors, with at most such scores
static int64_t decide(const Problem& p, const Book& book, int64_t n, const float* x, float threshold, int64_t k0,
                      int64_t k1) {
    Row row;
    row.begin(n, 0), row.threshold = threshold;
    for (int64_t k = k0; k < k1; k += L) {
        vec<float> score = load_aligned(book.half + k);
        const float* y = columns_of_codes(book, p.D, k);
        for (int64_t d = 0; d < p.D; d++)
            score = fused_minus(x[d * PANEL] - vec<float>{}, load_aligned(y + d * PANEL), score);
        for (uint32_t lanes = at_most(score, threshold - vec<float>{}); lanes; lanes &= lanes - 1) {
            const int l = __builtin_ctz(lanes);
            row.make_room(p, 1);
            row.code[row.kept] = k + l, row.lower[row.kept++] = score[l];
        }
    }
    return row.finish(p);
}

// The index of rows [n0, n1)
template <class T> static void search_in_lanes(const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {
    const float usual = 16 * std::sqrt(float(p.D)), longest = 1.01f * std::sqrt(book.sigma);
    const float gamma = 1.1f * (2 * p.D + 16) * 0x1p-24f, eta = 1.1f * (p.D + 4) * 0x1p-52f;
    for (; n0 < n1; n0 += PANEL) {
        columns_of((const T*)p.z, n0, n1, book, p.D, s, s.columns);
        Two two[ACROSS];
        const bool grouped = p.K >= 1024;    // so many that it is faster to look twice at one vector of codes
        (grouped ? offer_all<CODES> : offer_all<1>)(p, book, s.columns, two);
        for (int a = 0; a < ACROSS; a++) {
            const vec<float> square = squares_of(s.columns + a * L, p.D);
            const vec<float> norm = 1.01f * root(square);
            const vec<float> far = longest - vec<float>{}, near = std::min(usual, longest) - vec<float>{};
            const vec<float> reach = norm <= usual / 8 ? near : far;    // the norm of codes that may be nearest
            const vec<float> margin = gamma * reach * (norm + reach) + eta * square + 0x1p-100f;    // (C10)
            const vec<float> threshold = two[a].least_score + 2.01f * margin;
            const uint32_t proven = at_most(square, FAR_ROW - vec<float>{}), close = at_most(two[a].next, threshold);
            for (int l = 0; l < L && n0 + a * L + l < n1; l++) {
                const int64_t n = n0 + a * L + l, k = two[a].code[l];
                auto among = [&](int64_t k0, int64_t k1) {
                    return decide(p, book, n, s.columns + a * L + l, threshold[l], k0, k1);
                };
                if (!(proven >> l & 1)) search_directly(p, book, n, n + 1, s);
                else if (close >> l & 1) p.index[n] = among(0, whole(p.K, L));
                else p.index[n] = grouped ? among(k / L * L, k / L * L + L) : k;
            }
        }
    }
}
#endif
