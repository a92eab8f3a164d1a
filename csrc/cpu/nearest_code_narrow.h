// The float screen of csrc/nearest_code.cpp, for each instruction set: of few products a row, where integers would take
// longer to make than to multiply. Proof: docs/exact-argmin.md, "The CPU screen in float".
// Room: kernels/nearest_code.py
//
// Rows of z lie in the lanes of vectors, so nothing is added up across lanes: each lane finds the code of least score,
// and the next least score. Where these lie farther apart than both may err, the code is the nearest. Other rows are
// searched without a screen.
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
constexpr int PANEL = ACROSS * L;               // rows

// Packs codes [tile TILE, (tile + 1) TILE) into book: each less the centre, and half its squared norm
template <class T> static void pack_floats(const Problem& p, const Book& book, int64_t tile, float* x) {
    float longest = 0;
    for (int64_t k = tile * TILE; k < (tile + 1) * TILE; k++) {
        float *y = book.y + k * p.D, square = NAN;
        if (k < p.K) centred((const T*)p.e + k * p.D, book, p.D, x), square = square_of(x, 2 * book.S);
        if (square <= FAR_CODE) {
            std::copy(x, x + p.D, y), book.half[k] = 0.5f * square, longest = std::max(longest, square);
        } else {    // NaN, or so far that it cannot be nearest to any screened row (C7), or no code
            std::fill(y, y + p.D, 0.0f), book.half[k] = INFINITY;
        }
    }
    book.residual[tile] = longest;
}

// x[d] = column d of the PANEL rows from n0 on, less the centre; the last row stands for those from n1 on
template <class T> static void columns_of(const Problem& p, const Book& book, int64_t n0, int64_t n1, float* rows,
                                          float* x) {
    const int64_t stride = 2 * book.S;
    for (int r = 0; r < PANEL; r++)
        centred((const T*)p.z + std::min(n0 + r, n1 - 1) * p.D, book, p.D, rows + r * stride);
    for (int r = 0; r < PANEL; r += L)
        for (int64_t d = 0; d < p.D; d += L)
            transpose((const int32_t*)rows + r * stride + d, stride, (int32_t*)x + d * PANEL + r, PANEL, p.D - d);
}

struct Two {    // for each row of a vector
    vec<float> least_score = INFINITY - vec<float>{}, next = least_score;
    ints code = {};
    void offer(vec<float> score, int64_t k) {
        code = score < least_score ? int32_t(k) - ints{} : code;
        next = least(next, most(score, least_score));
        least_score = least(score, least_score);
    }
};

// Offers all codes to the rows of x: score_k = half_k - x . y_k
static void offer_all(const Problem& p, const Book& book, const float* x, Two (&two)[ACROSS]) {
    for (int64_t k = 0; k < p.K; k += CODES) {
        vec<float> score[CODES][ACROSS];
#pragma GCC unroll 8
        for (int c = 0; c < CODES; c++)
#pragma GCC unroll 2
            for (int a = 0; a < ACROSS; a++) score[c][a] = book.half[k + c] - vec<float>{};
        const float* y = book.y + k * p.D;
        for (int64_t d = 0; d < p.D; d++, y++) {
#pragma GCC unroll 8
            for (int c = 0; c < CODES; c++) {
                const vec<float> number = y[c * p.D] - vec<float>{};
#pragma GCC unroll 2
                for (int a = 0; a < ACROSS; a++)
                    score[c][a] = fused_minus(load_aligned(x + d * PANEL + a * L), number, score[c][a]);
            }
        }
#pragma GCC unroll 8
        for (int c = 0; c < CODES; c++)
#pragma GCC unroll 2
            for (int a = 0; a < ACROSS; a++) two[a].offer(score[c][a], k + c);
    }
}

// The index of rows [n0, n1)
template <class T> static void search_in_lanes(const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {
    const float usual = 64 * std::sqrt(float(p.D)), longest = 1.01f * std::sqrt(book.sigma);
    const float gamma = 1.1f * (2 * p.D + 16) * 0x1p-24f, eta = 1.1f * (p.D + 4) * 0x1p-52f;
    for (; n0 < n1; n0 += PANEL) {
        columns_of<T>(p, book, n0, n1, s.rows_in_float, s.columns);
        Two two[ACROSS];
        offer_all(p, book, s.columns, two);
        for (int a = 0; a < ACROSS; a++) {
            vec<float> square = {};
            for (int64_t d = 0; d < p.D; d++) {
                const vec<float> v = load_aligned(s.columns + d * PANEL + a * L);
                square += v * v;
            }
            const vec<float> norm = 1.01f * root(square);
            const vec<float> far = longest - vec<float>{}, near = std::min(usual, longest) - vec<float>{};
            const vec<float> reach = norm <= usual / 8 ? near : far;    // the norm of codes that may be nearest
            const vec<float> margin = gamma * reach * (norm + reach) + eta * square + 0x1p-100f;    // (C10)
            const uint32_t proven = at_most(square, FAR_ROW - vec<float>{}),
                           close = at_most(two[a].next, two[a].least_score + 2.01f * margin);
            for (int l = 0; l < L && n0 + a * L + l < n1; l++) {
                const int64_t n = n0 + a * L + l;
                if ((proven & ~close) >> l & 1) p.index[n] = two[a].code[l];
                else search_directly(p, book, n, n + 1, s);
            }
        }
    }
}
#endif
