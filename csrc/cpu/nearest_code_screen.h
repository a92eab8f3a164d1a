// The integer screen of csrc/nearest_code.cpp, for each instruction set. Proof: docs/exact-argmin.md, "The CPU screen".
// Room: kernels/nearest_code.py
#ifndef SET
#include <algorithm>
#include <cmath>
#include "nearest_code_problem.h"
#define AVX512_ALSO "avx512vnni"
#define EACH_SET "nearest_code_screen.h"
#include "each_set.h"

#else
// ---- the words of the screen ----------------------------------------------------------------------------------------
//
//   L                    numbers of 32 bits in a vector;  ROWS of z in a panel
//   dot2(acc, x, y)      acc + the two products of the 16-bit halves of x and y, in 32-bit integers
//   minus(h, a, b)       h - a b, rounded once or twice
//   below(a, b)          the bits of the lanes where a <= b

constexpr int L = LANES<float>;
typedef float vfloat __attribute__((vector_size(4 * L), may_alias));
typedef int32_t vint __attribute__((vector_size(4 * L), may_alias));
typedef int16_t vshort __attribute__((vector_size(2 * L), may_alias));
inline vfloat splat(float a) { return a - vfloat{}; }
inline vint splat(int32_t a) { return a - vint{}; }
#ifdef __clang__
template <class V> inline V rotated(V v, vint from) {
    V out;
    for (int l = 0; l < L; l++) out[l] = v[from[l]];
    return out;
}
inline vint blended(vint a, vint b, vint from) {
    vint out;
    for (int l = 0; l < L; l++) out[l] = from[l] < L ? a[from[l]] : b[from[l] - L];
    return out;
}
#else
template <class V> inline V rotated(V v, vint from) { return __builtin_shuffle(v, from); }
inline vint blended(vint a, vint b, vint from) { return __builtin_shuffle(a, b, from); }
#endif

#if SET == AVX512
#pragma GCC target("avx512vnni")
constexpr const char* NAME = "avx512";
constexpr int ROWS = 6;
inline vint dot2(vint acc, vint x, vint y) { return (vint)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)x, (__m512i)y); }
inline uint32_t below(vfloat a, vfloat b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
inline vfloat minus(vfloat h, vfloat a, vfloat b) { return (vfloat)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)h); }
#elif SET == AVX2
constexpr const char* NAME = "avx2";
constexpr int ROWS = 3;
inline vint dot2(vint acc, vint x, vint y) { return acc + (vint)_mm256_madd_epi16((__m256i)x, (__m256i)y); }
inline uint32_t below(vfloat a, vfloat b) {
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ));
}
inline vfloat minus(vfloat h, vfloat a, vfloat b) { return (vfloat)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)h); }
#else
constexpr const char* NAME = "portable";
constexpr int ROWS = 3;
#ifdef __SSE2__
inline vint dot2(vint acc, vint x, vint y) { return acc + (vint)_mm_madd_epi16((__m128i)x, (__m128i)y); }
inline uint32_t below(vfloat a, vfloat b) { return _mm_movemask_ps(_mm_cmple_ps((__m128)a, (__m128)b)); }
#else
inline vint dot2(vint acc, vint x, vint y) { return acc + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16); }
inline uint32_t below(vfloat a, vfloat b) {
    return (a[0] <= b[0]) | (a[1] <= b[1]) << 1 | (a[2] <= b[2]) << 2 | (a[3] <= b[3]) << 3;
}
#endif
inline vfloat minus(vfloat h, vfloat a, vfloat b) { return h - a * b; }
#endif

// a tile of codes is VECTORS x L wide; lane l holds the group of codes l, l + L, ...
constexpr int VECTORS = 4;
constexpr int TILE = VECTORS * L;

// ---- from numbers to 16-bit integers --------------------------------------------------------------------------------

// x = (z - centre) scale, rounded to float; zeros from D to the end, 2 S
template <class T> static void load(const T* z, const Book& book, int64_t D, float* x) {
    if (sizeof(T) < 8 && book.narrow)
        for (int64_t d = 0; d < D; d++) x[d] = (float(to_double(z[d])) - book.narrow_centre[d]) * float(book.scale);
    else
        for (int64_t d = 0; d < D; d++) x[d] = float((to_double(z[d]) - book.centre[d]) * book.scale);
    for (int64_t d = D; d < 2 * book.S; d++) x[d] = 0;
}

// Folds all lanes into one number: halves meet
template <class V, class F> static auto fold(V v, F f) {
    vint lane;
    for (int l = 0; l < L; l++) lane[l] = l;
#pragma GCC unroll 4
    for (int half = L / 2; half; half /= 2) v = f(v, rotated(v, (lane + half) & (L - 1)));
    return v[0];
}

// The sums of four vectors: after two meetings of halves one vector holds all four
static void fold4(const vint (&p)[4], int32_t (&sums)[4]) {
    vint lane;
    for (int l = 0; l < L; l++) lane[l] = l;
    constexpr int H = L / 2, Q = L / 4;
    // two-vector shuffles: the low halves of both, the high halves of both
    vint low = lane + (lane & H), high = low + H;
    vint a = blended(p[0], p[1], low) + blended(p[0], p[1], high),
         b = blended(p[2], p[3], low) + blended(p[2], p[3], high);
    low = (lane & (Q - 1)) + (lane & Q) * 2, high = low + Q;
    low = low + (lane & H) * 2, high = high + (lane & H) * 2;
    vint sum = blended(a, b, low) + blended(a, b, high);
#pragma GCC unroll 4
    for (int half = Q / 2; half; half /= 2) sum += rotated(sum, (lane + half) & (L - 1));
    for (int v = 0; v < 4; v++) sums[v] = sum[v * Q];
}

template <class V> static auto sum(V v) {
    return fold(v, [](auto a, auto b) { return a + b; });
}

static float square_of(const float* x, int64_t D) {                       // ||x||^2; NaN if there is a NaN in x
    vfloat square = {};
    for (int64_t d = 0; d < D; d += L) square += *(const vfloat*)(x + d) * *(const vfloat*)(x + d);
    return sum(square);
}

// The unit of a vector: its norm becomes RADIUS / 1.01 (C1)
static float unit_of(float square) { return std::max(sqrtf(square) * (1.01f / RADIUS), SMALLEST); }

// X = x / unit rounded to integers; returns ||x / unit - X||^2
static float quantise(const float* x, float unit, int64_t D, int16_t* X) {
    constexpr float magic = 0x1.8p23f;        // adding and taking it away rounds to an integer
    float inverse = 1 / unit;
    vfloat square = {};
    for (int64_t d = 0; d < D; d += L) {
        vfloat v = *(const vfloat*)(x + d) * inverse, rounded = (v + magic) - magic, rest = v - rounded;
        square += rest * rest;
        vshort q = __builtin_convertvector(__builtin_convertvector(rounded, vint), vshort);
        std::memcpy(X + d, &q, sizeof q);
    }
    return sum(square);
}

static float rounded_up(float square) { return 1.01f * sqrtf(square) + 0.01f; }    // a norm that is not too small (C3)

// ---- without a screen -----------------------------------------------------------------------------------------------

// x in double; zeros up to a whole number of vectors, P
template <class T> static void widen(const T* z, int64_t D, int64_t P, double* x) {
    for (int64_t d = 0; d < D; d++) x[d] = to_double(z[d]);
    for (int64_t d = D; d < P; d++) x[d] = 0;
}

// The index of rows [n0, n1): sums in double, in any order, choose the codes that must be measured
static void glance(const Problem& p, const Book&, int64_t n0, int64_t n1, Scratch& s) {
    typedef double vdouble __attribute__((vector_size(4 * L), may_alias));
    constexpr int HALF = L / 2;
    const int64_t P = (p.D + HALF - 1) / HALF * HALF;
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
                vdouble sums = {};
                for (int64_t d = 0; d < P; d += HALF) {
                    vdouble difference = *(const vdouble*)(s.wide + r * P + d) - *(const vdouble*)(y + d);
                    sums += difference * difference;
                }
                double sum = 0;
                for (int l = 0; l < HALF; l++) sum += sums[l];
                if (!(sum <= limit[r])) continue;
                measure(p, n0 + r, &k, 1, nearest[r]);
                if (sum < 0x1p1020) limit[r] = std::min(limit[r], sum * grow + tiny);    // (C8)
            }
        }
        for (int r = 0; r < R; r++) p.index[n0 + r] = nearest[r].k;
    }
}

// ---- the codebook ---------------------------------------------------------------------------------------------------

// L rows of L words: to[w][l] = from[l][w] for w < W. Halves of the square change places, then quarters, down
// to single words.
static void transpose(const int32_t* from, int64_t from_stride, int32_t* to, int64_t to_stride, int64_t W) {
    vint square[L], lane;
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) square[l] = *(const vint*)(from + l * from_stride), lane[l] = l;
#pragma GCC unroll 4
    for (int h = L / 2; h; h /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < L; i++)
            if (!(i & h)) {
                vint a = square[i], b = square[i + h], is_b = (lane & h) != 0;
                square[i] = blended(a, b, lane + (is_b & (L - h)));
                square[i + h] = blended(a, b, lane + (is_b ? splat(L) : splat(h)));
            }
#pragma GCC unroll 16
    for (int w = 0; w < L; w++)
        if (w < W) *(vint*)(to + w * to_stride) = square[w];
}

// Packs codes [tile TILE, (tile + 1) TILE) into book: the integers of each code, and the same for `bound` as
// [word][code], where a word holds two integers
template <class T> static void pack(const Problem& p, const Book& book, int64_t tile, float* y) {
    float *half = book.half + tile * TILE, *unit = book.unit + tile * TILE, rest = 0;
    const T* e = (const T*)p.e + tile * TILE * p.D;
    int codes = int(std::min<int64_t>(TILE, p.K - tile * TILE));
    // x is loaded twice: that is no slower than one long chain of dependent steps for each code
    for (int l = 0; l < codes; l++) {
        load(e + l * p.D, book, p.D, y);
        half[l] = square_of(y, 2 * book.S);
    }
    for (int l = 0; l < TILE; l++) {
        int16_t* Y = book.integers + (tile * TILE + l) * 2 * book.S;
        if (l < codes && half[l] <= FAR_CODE) {
            load(e + l * p.D, book, p.D, y);
            unit[l] = unit_of(half[l]);
            half[l] = 0.5f * half[l] * (1 - book.delta);                  // half_k (C5a)
            rest = std::max(rest, quantise(y, unit[l], 2 * book.S, Y));
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
    book.residual[tile] = rounded_up(rest);
    for (int l = 0; l < L; l++) {                 // the largest unit of each group
        float largest = 0;
        for (int v = 0; v < VECTORS; v++) largest = std::max(largest, unit[v * L + l]);
        book.group_unit[tile * L + l] = largest;
    }
}

// ---- the kernel -----------------------------------------------------------------------------------------------------

// low[r][l] = the least lower bound of a group of codes, half_k - a_r unit_k (X_r . Y_k + G_r), for ROWS rows and one
// tile after the other
static void bound(const Row* row, const int16_t* X, const Book& book, int64_t tile0, int64_t tile1, float* low,
                  int64_t stride) {
    const int64_t W = book.W, S = book.S;
    const vint* y = (const vint*)book.words + tile0 * W * VECTORS;
    const vfloat* half = (const vfloat*)(book.half + tile0 * TILE);
    const vfloat* unit = (const vfloat*)(book.unit + tile0 * TILE);
    for (int64_t tile = tile0; tile < tile1; tile++, half += VECTORS, unit += VECTORS, low += L) {
        vint acc[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) acc[r][v] = splat(row[r].margin);
        const char* x = (const char*)X;
        for (int64_t w = 0; w < W; w++, y += VECTORS, x += 4) {
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                vint xr = splat(*(const int32_t*)(x + r * 4 * S));
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) acc[r][v] = dot2(acc[r][v], xr, y[v]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            vfloat least;
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                vfloat bound = minus(half[v], row[r].unit * unit[v], __builtin_convertvector(acc[r][v], vfloat));
                least = v == 0 ? bound : bound < least ? bound
                                                       : least;
            }
            *(vfloat*)(low + r * stride) = least;
        }
    }
}

// ---- a block of rows ------------------------------------------------------------------------------------------------

// Keeps the codes of tiles [tile0, tile1), whose bounds are in s.low, that may be nearest to one of R rows. No branch
// depends on where these codes are.
static void sift(const Problem& p, const Book& book, int64_t tile0, int64_t tile1, int R, Scratch& s) {
    const vfloat* unit = (const vfloat*)(book.group_unit + tile0 * L);
    const float square = 1.1f * book.delta * C * C;
    for (int r = 0; r < R; r++) {
        Row& row = s.rows[r];
        const vfloat* bound = (const vfloat*)(s.low + r * s.groups);
        const float slack = row.unit * float(row.margin) * 2.00001f;
        vfloat least = splat(INFINITY);
        for (int64_t i = 0; i < tile1 - tile0; i++) {
            vfloat upper = bound[i] + unit[i] * (slack + square * unit[i]);    // U_k (C5b)
            least = upper < least ? upper : least;
        }
        // (C6)
        row.threshold =
            std::min(row.threshold, fold(least, [](auto a, auto b) { return a < b ? a : b; }) + row.twice_w);
    }
    int hits = 0;
    for (int r = 0; r < R; r++) {
        const vfloat* bound = (const vfloat*)(s.low + r * s.groups);
        const vfloat threshold = splat(s.rows[r].screened ? s.rows[r].threshold : -INFINITY);
        for (int64_t i = 0; i < tile1 - tile0; i++) {
            uint32_t lanes = below(bound[i], threshold);
            s.hit[hits] = int64_t(r) << 48 | (tile0 + i) << 16 | lanes;
            hits += lanes != 0;
        }
    }
    for (int h = 0; h < hits; h++)
        for (uint32_t r = s.hit[h] >> 48, lanes = s.hit[h] & 0xffff; lanes; lanes &= lanes - 1) {
            Row& row = s.rows[r];
            row.make_room(p, VECTORS);
            int64_t k = (s.hit[h] >> 16 & 0xffffffff) * TILE + __builtin_ctz(lanes);
            const vint *x = (const vint*)(s.X + r * 2 * book.S), *y = (const vint*)(book.integers + k * 2 * book.S);
            vint products[VECTORS] = {};
            for (int64_t w = 0; w < book.S; w += L, x++, y++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) products[v] = dot2(products[v], *x, y[v * book.S]);
            int32_t sums[VECTORS];
            fold4(products, sums);
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
    for (int64_t n = n0; n < n1; n++) {
        load(z + n * p.D, book, p.D, s.x);
        s.rows[n - n0].begin(n, square_of(s.x, 2 * book.S));
    }
    for (int64_t n = n0; n < n1; n++) {
        Row& row = s.rows[n - n0];
        // X keeps old numbers; the bounds of this row are never read
        if (!row.screened) continue;
        load(z + n * p.D, book, p.D, s.x);
        row.unit = unit_of(row.square);
        float rho = rounded_up(quantise(s.x, row.unit, 2 * book.S, s.X + (n - n0) * 2 * book.S));
        float length = rounded_up(row.square / row.unit / row.unit);      // >= ||x / unit||
        row.margin = int32_t(C * rho + length * book.sigma) + 1024;       // G (C4)
        row.twice_w = 1.1f * (p.D + 4) * 0x1p-52f * row.square;           // (C6)
    }
    int panels = int((n1 - n0 + ROWS - 1) / ROWS);    // the bounds of rows past the last are never read either
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
        else glance(p, book, n, n + 1, s);
}

// pack and search for the dtypes at hand
static void pack_tile(const Problem& p, const Book& book, int64_t tile, float* y) {
    with_dtype(p.e_dtype, [&](auto t) { pack<decltype(t)>(p, book, tile, y); });
}
static void search_rows(const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {
    with_dtype(p.z_dtype, [&](auto t) { search<decltype(t)>(p, book, n0, n1, s); });
}
#endif
