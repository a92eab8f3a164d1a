// The integer screen of csrc/nearest_code.cpp, for each instruction set. Proof: docs/exact-argmin.md, "The CPU screen".
// Room: kernels/nearest_code.py
#ifndef SET
#include <algorithm>
#include <cmath>
#include "divide.h"
#include "integers.h"
#include "nearest_code_problem.h"
#define EACH_SET "nearest_code_screen.h"
#include "each_set.h"

#else
#include "nearest_code_narrow.h"

constexpr int ROWS = SET == AVX512 ? 6 : 3;    // of z in a panel

// ---- the kernel -----------------------------------------------------------------------------------------------------

// low[r][l] = the least lower bound of a group of codes, half_k - a_r unit_k (X_r . Y_k + G_r), for ROWS rows and one
// tile after the other
static void bound(const Row* row, const int16_t* X, const Book& book, int64_t tile0, int64_t tile1, float* low,
                  int64_t stride) {
    const int64_t W = book.W, S = book.S;
    const int32_t* y = (const int32_t*)book.words + tile0 * W * TILE;
    const float *half = book.half + tile0 * TILE, *unit = book.unit + tile0 * TILE;
    for (int64_t tile = tile0; tile < tile1; tile++, half += TILE, unit += TILE, low += L) {
        ints acc[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) acc[r][v] = row[r].margin - ints{};
        const int16_t* x = X;
        for (int64_t w = 0; w < W; w++, y += TILE, x += 2) {
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                ints xr = both(x + r * 2 * S);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) acc[r][v] = dot2(acc[r][v], xr, load_aligned(y + v * L));
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            vec<float> lowest;
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                vec<float> dot = __builtin_convertvector(acc[r][v], vec<float>);
                vec<float> units = row[r].unit * load_aligned(unit + v * L);
                vec<float> score = fused_minus(units, dot, load_aligned(half + v * L));
                lowest = v ? least(score, lowest) : score;
            }
            store_aligned(low + r * stride, lowest);
        }
    }
}

// ---- a block of rows ------------------------------------------------------------------------------------------------

// Keeps the codes of tiles [tile0, tile1), whose bounds are in s.low, that may be nearest to one of R rows. No branch
// depends on where these codes are.
static void sift(const Problem& p, const Book& book, int64_t tile0, int64_t tile1, int R, Scratch& s) {
    const float* unit = book.group_unit + tile0 * L;
    const float square = 1.1f * book.delta * C * C;
    for (int r = 0; r < R; r++) {
        Row& row = s.rows[r];
        const float* bound = s.low + r * s.groups;
        const float slack = row.unit * float(row.margin) * 2.00001f;
        vec<float> low = INFINITY - vec<float>{};
        for (int64_t i = 0; i < tile1 - tile0; i++) {
            vec<float> u = load_aligned(unit + i * L);
            low = least(load_aligned(bound + i * L) + u * (slack + square * u), low);    // U_k (C5b)
        }
        row.threshold = std::min(row.threshold, lowest<float>(low) + row.twice_w);    // (C6)
    }
    int hits = 0;
    for (int r = 0; r < R; r++) {
        const float* bound = s.low + r * s.groups;
        const vec<float> threshold = (s.rows[r].screened ? s.rows[r].threshold : -INFINITY) - vec<float>{};
        for (int64_t i = 0; i < tile1 - tile0; i++) {
            uint32_t lanes = at_most(load_aligned(bound + i * L), threshold);
            s.hit[hits] = int64_t(r) << 48 | (tile0 + i) << 16 | lanes;
            hits += lanes != 0;
        }
    }
    for (int h = 0; h < hits; h++)
        for (uint32_t r = s.hit[h] >> 48, lanes = s.hit[h] & 0xffff; lanes; lanes &= lanes - 1) {
            Row& row = s.rows[r];
            row.make_room(p, VECTORS);
            int64_t k = (s.hit[h] >> 16 & 0xffffffff) * TILE + __builtin_ctz(lanes);
            const int32_t *x = (const int32_t*)(s.X + r * 2 * book.S), *y = (const int32_t*)book.integers + k * book.S;
            ints products[VECTORS] = {};
            for (int64_t w = 0; w < book.S; w += L, x += L, y += L)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++)
                    products[v] = dot2(products[v], load_aligned(x), load_aligned(y + v * L * book.S));
            int32_t sums[VECTORS];
            totals(products, sums);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++, k += L) {
                float lower = book.half[k] - row.unit * book.unit[k] * float(row.margin + sums[v]);
                row.code[row.kept] = k, row.lower[row.kept] = lower;
                row.kept += lower <= row.threshold;
            }
        }
}

// The index of rows [n0, n1)
template <class T> static void search(const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {
    const T* z = (const T*)p.z;
    alignas(BYTES) float square[BLOCK] = {}, unit[BLOCK], inverse[BLOCK], rest[BLOCK] = {}, margin[BLOCK];
    for (int64_t n = n0; n < n1; n++) {
        centred(z + n * p.D, book, p.D, s.x);
        square[n - n0] = square_of(s.x, 2 * book.S);
        s.rows[n - n0].begin(n, square[n - n0]);
    }
    for (int i = 0; i < BLOCK; i += L) {    // roots and quotients of many rows at once: each takes its time
        const vec<float> units = unit_of(load_aligned(square + i));
        store_aligned(unit + i, units), store_aligned(inverse + i, 1 / units);
    }
    for (int64_t n = n0; n < n1; n++) {
        // X keeps old numbers where a row is not screened; its bounds are never read
        if (!s.rows[n - n0].screened) continue;
        centred(z + n * p.D, book, p.D, s.x);
        rest[n - n0] = quantise(s.x, inverse[n - n0], 2 * book.S, s.X + (n - n0) * 2 * book.S);
    }
    for (int i = 0; i < BLOCK; i += L) {
        const vec<float> units = load_aligned(unit + i), rho = rounded_up(load_aligned(rest + i));
        const vec<float> length = rounded_up(load_aligned(square + i) / units / units);    // >= ||x / unit||
        store_aligned(margin + i, C * rho + length * book.sigma);
    }
    for (int64_t n = n0; n < n1; n++) {
        Row& row = s.rows[n - n0];
        if (!row.screened) continue;
        row.unit = unit[n - n0], row.margin = int32_t(margin[n - n0]) + 1024;    // G (C4)
        row.twice_w = 1.1f * (p.D + 4) * 0x1p-52f * row.square;                  // (C6)
    }
    int panels = int(ceil_div(n1 - n0, ROWS));    // the bounds of rows past the last are never read either
    // tiles that stay in the first cache
    int64_t tiles = book.tiles, stride = s.groups, few = 1 + 4096 / (1 + book.W * TILE);
    for (int64_t tile0 = 0; tile0 < tiles; tile0 += s.groups / L) {
        int64_t tile1 = std::min(tiles, tile0 + s.groups / L);
        for (int64_t from = tile0; from < tile1; from += few)
            for (int panel = 0; panel < panels; panel++) {
                float* low = s.low + panel * ROWS * stride + (from - tile0) * L;
                bound(s.rows + panel * ROWS, s.X + panel * ROWS * 2 * book.S, book, from, std::min(tile1, from + few),
                      low, stride);
            }
        sift(p, book, tile0, tile1, int(n1 - n0), s);
    }
    for (int64_t n = n0; n < n1; n++)
        if (s.rows[n - n0].screened) p.index[n] = s.rows[n - n0].finish(p);
        else search_directly(p, book, n, n + 1, s);
}

// The same for the dtypes at hand
static bool choose_centre_of(const Problem& p, Book& book) {
    bool found = false;
    with_dtype(p.e_dtype, [&](auto t) { found = choose_centre<decltype(t)>(p, book); });
    return found;
}
static void pack_tile(const Problem& p, const Book& book, int64_t tile, Scratch& s) {
    with_dtype(p.e_dtype, [&](auto t) {
        using T = decltype(t);
        (book.in_float ? pack_floats<T> : pack<T>)(p, book, tile, s);
    });
}
static void search_rows(const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {
    with_dtype(p.z_dtype, [&](auto t) {
        using T = decltype(t);
        (book.in_float ? search_in_lanes<T> : search<T>)(p, book, n0, n1, s);
    });
}
#endif
