// Normal numbers from a seed, in vectors: kernels/_noise.py for native kernels. Philox 4x32-10 turns the seed and the
// counter (q, n) into four words, Box-Muller turns these into the numbers d = 4q ... 4q + 3 of row n.
//
//   draw(seed, n0, n1, d0, d1, D, out)      numbers d0 ... d1-1 of rows n0 ... n1-1, at out[n D + d]; 4 divides d0
#ifndef SET
#include <algorithm>
#define EACH_SET "noise.h"
#include "each_set.h"
#else

constexpr int COUNTERS = LANES<float>;    // of one step
typedef float vfloats __attribute__((vector_size(BYTES), may_alias));
typedef int32_t vints __attribute__((vector_size(BYTES), may_alias));
typedef uint32_t vwords __attribute__((vector_size(BYTES), may_alias));
typedef uint64_t vpairs __attribute__((vector_size(BYTES), may_alias));

// product(a, b): of the low halves of 64 bits
// interleaved(a, b, c, d, out): a, b, c, d of each lane side by side
#if SET == AVX512
inline vpairs product(vpairs a, vpairs b) { return (vpairs)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b); }
inline __m512 low_of(__m512 a, __m512 b) { return _mm512_maskz_unpacklo_ps(0xffff, a, b); }
inline __m512 high_of(__m512 a, __m512 b) { return _mm512_maskz_unpackhi_ps(0xffff, a, b); }
inline __m512 low_pairs(__m512 a, __m512 b) { return (__m512)_mm512_maskz_unpacklo_pd(0xff, (__m512d)a, (__m512d)b); }
inline __m512 high_pairs(__m512 a, __m512 b) { return (__m512)_mm512_maskz_unpackhi_pd(0xff, (__m512d)a, (__m512d)b); }
#elif SET == AVX2
inline vpairs product(vpairs a, vpairs b) { return (vpairs)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
inline __m256 low_of(__m256 a, __m256 b) { return _mm256_unpacklo_ps(a, b); }
inline __m256 high_of(__m256 a, __m256 b) { return _mm256_unpackhi_ps(a, b); }
inline __m256 low_pairs(__m256 a, __m256 b) { return (__m256)_mm256_unpacklo_pd((__m256d)a, (__m256d)b); }
inline __m256 high_pairs(__m256 a, __m256 b) { return (__m256)_mm256_unpackhi_pd((__m256d)a, (__m256d)b); }
#else
inline vpairs product(vpairs a, vpairs b) { return (a & 0xffffffff) * (b & 0xffffffff); }
#endif

#if SET == PORTABLE
static inline void interleaved(vfloats a, vfloats b, vfloats c, vfloats d, float (*out)[4]) {
    for (int l = 0; l < COUNTERS; l++) out[l][0] = a[l], out[l][1] = b[l], out[l][2] = c[l], out[l][3] = d[l];
}
#else
static inline void interleaved(vfloats a, vfloats b, vfloats c, vfloats d, float (*out)[4]) {
    auto ab = low_of(a, b), cd = low_of(c, d), AB = high_of(a, b), CD = high_of(c, d);
    // part i holds lanes i, i + 4, i + 8, ...
    const vfloats part[4] = {low_pairs(ab, cd), high_pairs(ab, cd), low_pairs(AB, CD), high_pairs(AB, CD)};
    for (int l = 0; l < COUNTERS; l++) std::memcpy(out[l], (const float*)&part[l % 4] + l / 4 * 4, 16);
}
#endif

struct Words {
    vwords a, b, c, d;
};

// x m, 64 bits, of each lane
static inline void multiply(vwords x, uint32_t m, vwords& high, vwords& low) {
    const uint64_t LOW = 0xffffffff;
    vpairs factor = m + vpairs{}, even = product((vpairs)x, factor), odd = product((vpairs)x >> 32, factor);
    high = (vwords)((even >> 32) | (odd & ~LOW)), low = (vwords)((even & LOW) | (odd << 32));
}

static inline Words philox(uint64_t seed, Words w) {
    uint32_t key = uint32_t(seed), other = uint32_t(seed >> 32);
    for (int turn = 0; turn < 10; turn++) {
        vwords p_high, p_low, r_high, r_low;
        multiply(w.a, 0xD2511F53, p_high, p_low), multiply(w.c, 0xCD9E8D57, r_high, r_low);
        w = {r_high ^ w.b ^ key, r_low, p_high ^ w.d ^ other, p_low};
        key += 0x9E3779B9, other += 0xBB67AE85;
    }
    return w;
}

// In [0, 1), from 31 of the 32 bits
static inline vfloats uniform(vwords word) {
    vints bits = (vints)word;
    return __builtin_convertvector(bits ^ (bits >> 31), vfloats) * 4.6566127342e-10f;
}

// log u, of u in [1e-7, 1]: u = 2^e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), and the series of f (Moshier's Cephes)
static inline vfloats logarithm(vfloats u) {
    constexpr float SERIES[] = {7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f,
                                -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                                2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    const vints zero = {}, root_of_half = 0x3f3504f3 + zero;    // bits of sqrt(1/2)
    vints bits = (vints)u, exponent = (bits - root_of_half) >> 23;
    vfloats f = (vfloats)(bits - (exponent << 23)) - 1, square = f * f, e = __builtin_convertvector(exponent, vfloats);
    vfloats sum = SERIES[0] + vfloats{};
    for (int i = 1; i < 9; i++) sum = fused(sum, f, SERIES[i] + vfloats{});
    sum = sum * f * square - 2.12194440e-4f * e - 0.5f * square;
    return f + sum + 0.693359375f * e;    // log 2 in two parts, of which the larger has few bits
}

// cos 2 pi v, of v in [0, 1): the polynomial of kernels/_noise.py
static inline vfloats cosine(vfloats v) {
    vfloats x = 2 * v - 1;
    x = most(x, -x) - 0.5f;
    vfloats y = x * x, sine = 0.59926453f - y * (0.08214589f - y * 0.00737043f);
    return x * (3.14159265f - y * (5.16771278f - y * (2.55016404f - y * sine)));
}

static inline vfloats radius(vwords u) { return root(-2 * logarithm(most(1e-7f + vfloats{}, uniform(u)))); }
static inline vfloats quarter_back(vfloats v) { return v < 0.25f ? v + 0.75f : v - 0.25f; }    // its cosine is a sine

static inline void box_muller(const Words& w, float (*out)[4]) {
    vfloats k = uniform(w.c), m = uniform(w.d), i = radius(w.a), j = radius(w.b);
    interleaved(i * cosine(k), i * cosine(quarter_back(k)), j * cosine(m), j * cosine(quarter_back(m)), out);
}

// COUNTERS counters from q on, of row n: 4 COUNTERS numbers of one row
template <class T> static inline void draw_part(uint64_t seed, uint64_t n, uint64_t q, T* out) {
    const vwords zero = {};
    vwords lane;
    for (int l = 0; l < COUNTERS; l++) lane[l] = l;
    Words w = {lane + uint32_t(q), uint32_t(q >> 32) + zero, uint32_t(n) + zero, uint32_t(n >> 32) + zero};
    alignas(64) float four[COUNTERS][4];
    box_muller(philox(seed, w), four);
    for (int i = 0; i < 4 * COUNTERS; i++) out[i] = T(four[i / 4][i % 4]);
}

template <class T> static void draw(uint64_t seed, int64_t n0, int64_t n1, int64_t d0, int64_t d1, int64_t D, T* out) {
    alignas(64) uint32_t counter[4][COUNTERS] = {};    // the words of q, and those of n
    alignas(64) float four[COUNTERS][4];
    T* place[COUNTERS];
    int64_t count[COUNTERS], n = n0, d = d0;
    while (n < n1 && d0 < d1) {
        if (d + 4 * COUNTERS <= d1 && uint32_t(d / 4) < uint32_t(d / 4 + COUNTERS)) {
            draw_part(seed, uint64_t(n), uint64_t(d / 4), out + n * D + d);
            d += 4 * COUNTERS;
            if (d >= d1) d = d0, n++;
            continue;
        }
        int lanes = 0;
        for (; lanes < COUNTERS && n < n1; lanes++) {    // the end of a row, and the rows after it
            uint64_t q = uint64_t(d) / 4;
            counter[0][lanes] = uint32_t(q), counter[1][lanes] = uint32_t(q >> 32);
            counter[2][lanes] = uint32_t(n), counter[3][lanes] = uint32_t(n >> 32);
            place[lanes] = out + n * D + d, count[lanes] = std::min<int64_t>(4, d1 - d);
            d += 4;
            if (d >= d1) d = d0, n++;
        }
        Words w;
        std::memcpy(&w, counter, sizeof w);
        box_muller(philox(seed, w), four);
        for (int l = 0; l < lanes; l++)
            for (int i = 0; i < count[l]; i++) place[l][i] = T(four[l][i]);
    }
}
#endif
