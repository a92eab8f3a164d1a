// The exact nearest code: its definition, and the data of the screen (csrc/cpu/nearest_code_screen.h).
// Room: kernels/nearest_code.py
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include "numbers.h"

namespace {

// ---- the definition -------------------------------------------------------------------------------------------------

struct Problem {
    int z_dtype, e_dtype;
    const void *z, *e;
    int64_t* index;
    int64_t N, K, D;
};

struct Nearest {
    double d = INFINITY;
    int64_t k = 0;
    void offer(double other, int64_t j) {
        if (other < d || (other == d && j < k)) d = other, k = j;
    }    // NaN is never less
};

// Offers d_nk of J codes: J sums at a time, because each is one long chain of additions
template <int J, class Z, class E> void measure(const Problem& p, int64_t n, const int64_t (&k)[J], Nearest& nearest) {
    const Z* z = (const Z*)p.z + n * p.D;
    const E* e[J];
    double sum[J] = {};
    for (int j = 0; j < J; j++) e[j] = (const E*)p.e + k[j] * p.D;
    for (int64_t d = 0; d < p.D; d++)
        for (int j = 0; j < J; j++) {
            double difference = to_double(z[d]) - to_double(e[j][d]);
            sum[j] += difference * difference;
        }
    for (int j = 0; j < J; j++) nearest.offer(sum[j], k[j]);
}

template <class Z, class E> void measure(const Problem& p, int64_t n, const int64_t* codes, int64_t count,
                                         Nearest& nearest) {
    auto code = [&](int64_t i) { return codes[std::min(i, count - 1)]; };
    int64_t i = 0;
    for (; i + 2 < count; i += 4) measure<4, Z, E>(p, n, {code(i), code(i + 1), code(i + 2), code(i + 3)}, nearest);
    if (i < count) measure<2, Z, E>(p, n, {code(i), code(i + 1)}, nearest);
}

void measure(const Problem& p, int64_t n, const int64_t* codes, int64_t count, Nearest& nearest) {
    with_dtype(p.z_dtype, [&](auto z) {
        with_dtype(p.e_dtype, [&](auto e) { measure<decltype(z), decltype(e)>(p, n, codes, count, nearest); });
    });
}

// ---- the data of the screen -----------------------------------------------------------------------------------------

// ||x / unit|| <= RADIUS: so integers fit in 16 bits, and their norm is at most C   (C1)
constexpr float RADIUS = 32400;
constexpr float C = 33000;
constexpr float SMALLEST = 0x1p-60f;      // units are 2^-60 or more: the product of two cannot underflow
// squared norms, in the scale where a typical code's largest number is 1   (C7)
constexpr float FAR_CODE = 0x1p122f;
constexpr float FAR_ROW = 0x1p118f;
constexpr int64_t WIDEST = 65536;         // the largest D that the rounding of norms is proven for
constexpr int FEW = 4;                    // rows that are summed in double at a time
constexpr float FLOAT_REACHES = 0x1p100f; // squared distances in float are exact enough up to here   (C9)
constexpr int MAX_TILE = 64, MOST_ROWS = 32, BLOCK = 96, KEPT = 32, SAMPLE = 31;

struct Book {                             // the codebook, packed
    // any finite centre and any power of two are valid; the better, the fewer survivors
    double *centre, scale;
    int16_t *words, *integers;
    float *half, *unit, *group_unit, *residual;
    float *narrow_centre, delta, sigma;
    float* y;                             // codes less the centre, of the float screen
    bool in_float;                        // the screen
    bool narrow;                          // centring may be done in float
    // words of 32 bits a code; the same padded, for `integers` and rows; tiles of codes
    int64_t W, S, tiles;
};

struct Row {
    int64_t n;
    bool screened;
    float square, unit, twice_w, threshold;
    int32_t margin;
    int kept;
    int64_t code[KEPT];
    float lower[KEPT];
    Nearest nearest;

    void begin(int64_t row, float norm2) {
        n = row, square = norm2, screened = square <= FAR_ROW;                // not if NaN
        threshold = INFINITY, kept = margin = 0, unit = 0, nearest = Nearest();
    }
    void prune() {
        int still = 0;
        for (int i = 0; i < kept; i++)
            if (lower[i] <= threshold) code[still] = code[i], lower[still++] = lower[i];
        kept = still;
    }
    void make_room(const Problem& p, int count) {
        if (kept + count > KEPT) prune();                                     // the threshold may have fallen since
        if (kept + count > KEPT) measure(p, n, code, kept, nearest), kept = 0;
    }
    int64_t finish(const Problem& p) {
        prune();
        // no other code can be as near, whatever the distance
        if (kept == 1 && nearest.d == INFINITY) return code[0];
        measure(p, n, code, kept, nearest);
        return nearest.k;
    }
};

struct Scratch {                          // of one thread
    Row* rows;
    float *x, *low;
    double* wide;                         // FEW rows and a code
    int16_t* X;
    // row, tile, and a bit for each group of the tile that may hold the row's nearest code
    int64_t* hit;
    int64_t groups;                       // of codes, that a row's bounds have room for
    int64_t bounds;                       // that `low` has room for
    float *rows_in_float, *columns;       // of MOST_ROWS in lanes
};

}    // namespace
