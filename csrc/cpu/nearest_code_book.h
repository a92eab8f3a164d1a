// The codebook of csrc/nearest_code.cpp as 16-bit integers, and a row of z likewise, for each instruction set. Read by
// nearest_code_screen.h. Proof: docs/exact-argmin.md, "The CPU screen".
#ifndef SET
#include <algorithm>
#include <cmath>
#include "integers.h"
#include "nearest_code_problem.h"
#define EACH_SET "nearest_code_book.h"
#include "each_set.h"

#else
#include "integers.h"

// a tile of codes is VECTORS x L wide; lane l holds the group of codes l, l + L, ...
constexpr int VECTORS = 4;
constexpr int TILE = VECTORS * L;

// ---- from numbers to floats -----------------------------------------------------------------------------------------

// x in T; zeros up to a whole number of vectors, P
template <class T, class Z> static void widen(const Z* z, int64_t D, int64_t P, T* x) {
    for (int64_t d = 0; d < D; d++) x[d] = T(to_double(z[d]));
    for (int64_t d = D; d < P; d++) x[d] = 0;
}

// ---- the centre -----------------------------------------------------------------------------------------------------

// The centre: of each coordinate the median over a few finite codes. The scale: a typical code's largest number becomes
// 1. False if no code is finite, or if the definition's sums might over- or underflow in double.
template <class T> static bool choose_centre(const Problem& p, Book& book) {
    constexpr int W = LANES<double>;
    const T* sample[SAMPLE];
    int count = 0;
    auto columns = [&](int64_t d) { return int(std::min<int64_t>(W, p.D - d)); };
    auto take_if_finite = [&](const T* code) {
        vec<double> v, sum = {};    // of zeros, or NaN
        for (int64_t d = 0; d < p.D; d += W) widen(code + d, columns(d), W, (double*)&v), sum += v * 0;
        if (total<double>(sum) == 0) sample[count++] = code;
    };
    const T* e = (const T*)p.e;
    int64_t step = std::max<int64_t>(1, p.K / SAMPLE);
    for (int64_t k = 0; k < p.K && count < SAMPLE; k += step) take_if_finite(e + k * p.D);
    for (int64_t k = 0; k < p.K && count == 0; k++) take_if_finite(e + k * p.D);
    if (count == 0) return false;
    vec<double> column[SAMPLE], sorted[SAMPLE], largest[SAMPLE] = {};
    for (int64_t d = 0; d < p.D; d += W) {
        for (int i = 0; i < count; i++) widen(sample[i] + d, columns(d), W, (double*)&column[i]);
        std::copy(column, column + count, sorted);
        for (int round = 0; round < count; round++)    // neighbours change places until all are in order
            for (int i = round & 1; i + 1 < count; i += 2) {
                const vec<double> a = sorted[i], b = sorted[i + 1];
                sorted[i] = least(a, b), sorted[i + 1] = most(a, b);
            }
        const vec<double> middle = sorted[count / 2];
        for (int i = 0; i < count; i++) largest[i] = most(largest[i], most(column[i] - middle, middle - column[i]));
        for (int w = 0; w < columns(d); w++)
            book.centre[d + w] = middle[w], book.narrow_centre[d + w] = float(middle[w]);
    }
    double size[SAMPLE];
    for (int i = 0; i < count; i++) size[i] = -lowest<double>(-largest[i]);
    std::sort(size, size + count);
    double typical = size[count / 2];
    if (typical == 0) typical = size[count - 1];
    int exponent = typical > 0 ? std::ilogb(typical) : 0;
    if (typical == INFINITY || std::abs(exponent) > 450) return false;
    book.scale = std::ldexp(1.0, -exponent);
    // the centre is a float; what overflows is farther than FAR_CODE
    book.narrow = p.e_dtype != 3 && std::abs(exponent) <= 60;
    book.delta = 1.01f * (p.D + 64) * 0x1p-24f;
    return true;
}

// ---- from numbers to 16-bit integers --------------------------------------------------------------------------------

// x = (z - centre) scale, rounded to float; zeros from D to the end, 2 S. By whole vectors where z is float: they are
// read again at once, and what was written number by number arrives late
template <class T> static void centred(const T* z, const Book& book, int64_t D, float* x) {
    int64_t d = 0;
    if (sizeof(T) == 4 && book.narrow)
        for (const vec<float> scale = float(book.scale) - vec<float>{}; d < D; d += L) {
            const int64_t count = std::min<int64_t>(L, D - d);
            store_aligned(x + d, (load((const float*)z + d, count) - load(book.narrow_centre + d, count)) * scale);
        }
    else if (sizeof(T) < 8 && book.narrow)
        for (; d < D; d++) x[d] = (float(to_double(z[d])) - book.narrow_centre[d]) * float(book.scale);
    else
        for (; d < D; d++) x[d] = float((to_double(z[d]) - book.centre[d]) * book.scale);
    for (; d % L; d++) x[d] = 0;
    for (; d < 2 * book.S; d += L) store_aligned(x + d, vec<float>{});
}

static float square_of(const float* x, int64_t D) {    // ||x||^2; NaN if there is a NaN in x
    vec<float> square = {};
    for (int64_t d = 0; d < D; d += L) square += load_aligned(x + d) * load_aligned(x + d);
    return total<float>(square);
}

// The unit of a vector: its norm becomes RADIUS / 1.01 (C1)
static vec<float> unit_of(vec<float> square) {
    return most(root(square) * (1.01f / RADIUS), SMALLEST - vec<float>{});
}

// X = x inverse rounded to integers, where inverse is 1 / unit; returns ||x inverse - X||^2
static float quantise(const float* x, float inverse, int64_t D, int16_t* X) {
    constexpr float magic = 0x1.8p23f;    // adding and taking it away rounds to an integer
    vec<float> square = {};
    for (int64_t d = 0; d < D; d += L) {
        vec<float> v = load_aligned(x + d) * inverse, rounded = (v + magic) - magic, rest = v - rounded;
        square += rest * rest;
        store_16(X + d, __builtin_convertvector(rounded, ints));
    }
    return total<float>(square);
}

// norms that are not too small (C3)
static vec<float> rounded_up(vec<float> square) { return 1.01f * root(square) + 0.01f; }

// ---- the codebook ---------------------------------------------------------------------------------------------------

// Packs codes [tile TILE, (tile + 1) TILE) into book: the integers of each code, and the same for `bound` as
// [word][code], where a word holds two integers
template <class T> static void pack(const Problem& p, const Book& book, int64_t tile, Scratch& s) {
    float *half = book.half + tile * TILE, *unit = book.unit + tile * TILE, rest = 0;
    const T* e = (const T*)p.e + tile * TILE * p.D;
    alignas(BYTES) float inverse[TILE];
    float* y = s.x;
    int codes = int(std::min<int64_t>(TILE, p.K - tile * TILE));
    // x is computed twice: that is no slower than one long chain of dependent steps for each code
    for (int l = 0; l < codes; l++) {
        centred(e + l * p.D, book, p.D, y);
        half[l] = square_of(y, 2 * book.S);
    }
    for (int l = codes; l < TILE; l++) half[l] = 0;
    for (int l = 0; l < TILE; l += L) {
        const vec<float> units = unit_of(load_aligned(half + l));
        store_aligned(unit + l, units), store_aligned(inverse + l, 1 / units);
    }
    for (int l = 0; l < TILE; l++) {
        int16_t* Y = book.integers + (tile * TILE + l) * 2 * book.S;
        if (l < codes && half[l] <= FAR_CODE) {
            centred(e + l * p.D, book, p.D, y);
            half[l] = 0.5f * half[l] * (1 - book.delta);    // half_k (C5a)
            rest = std::max(rest, quantise(y, inverse[l], 2 * book.S, Y));
        } else {
            // NaN, or so far that it cannot be nearest to any screened row (C7), or no code
            unit[l] = 0, half[l] = INFINITY;
            std::memset(Y, 0, sizeof(int32_t) * book.S);
        }
    }
    int32_t* words = (int32_t*)book.words + tile * book.W * TILE;
    for (int64_t w = 0; w < book.W; w += L)
        for (int l = 0; l < TILE; l += L)
            transpose((int32_t*)book.integers + (tile * TILE + l) * book.S + w, book.S, words + w * TILE + l, TILE,
                      book.W - w);
    book.residual[tile] = rounded_up(rest - vec<float>{})[0];
    for (int l = 0; l < L; l++) {    // the largest unit of each group
        float largest = 0;
        for (int v = 0; v < VECTORS; v++) largest = std::max(largest, unit[v * L + l]);
        book.group_unit[tile * L + l] = largest;
    }
}
#endif
