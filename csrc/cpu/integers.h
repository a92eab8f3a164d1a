// Functions for products of 16-bit integers, beside those of vectors.h:
//
//   dot2(acc, x, y)        acc + the two products of the 16-bit halves of x and y, in each lane of 32 bits
//   both(p)                the two 16-bit integers at p, in every lane
//   store_16(p, v)         stores the lanes as 16-bit integers
//   totals(v, sums)        the sums of the lanes of four vectors
//   each_total(v)          the sum of each of as many vectors of floats as there are lanes, as one vector
//   transpose(...)         a square of 32-bit integers
//   at_most(a, b)          of floats: the bits of the lanes where a <= b
//
// A kernel includes it before each_set.h, where it names the instructions that it needs, and again in part 2.
#ifndef SET
#define AVX512_ALSO "avx512vnni"
#else

using ints = vec<int32_t>;
constexpr int L = LANES<float>;    // numbers of 32 bits in a vector

#if SET == AVX512
#pragma GCC target("avx512vnni")
inline ints dot2(ints acc, ints x, ints y) { return (ints)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)x, (__m512i)y); }
inline uint32_t at_most(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
#elif SET == AVX2
inline ints dot2(ints acc, ints x, ints y) { return acc + (ints)_mm256_madd_epi16((__m256i)x, (__m256i)y); }
inline uint32_t at_most(__m256 a, __m256 b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)); }
#elif defined(WIDE_X86)
inline ints dot2(ints acc, ints x, ints y) { return acc + (ints)_mm_madd_epi16((__m128i)x, (__m128i)y); }
inline uint32_t at_most(vec<float> a, vec<float> b) { return _mm_movemask_ps(_mm_cmple_ps((__m128)a, (__m128)b)); }
#else
inline ints dot2(ints acc, ints x, ints y) { return acc + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16); }
inline uint32_t at_most(vec<float> a, vec<float> b) {
    return (a[0] <= b[0]) | (a[1] <= b[1]) << 1 | (a[2] <= b[2]) << 2 | (a[3] <= b[3]) << 3;
}
#endif

inline ints both(const int16_t* p) {
    int32_t word;
    std::memcpy(&word, p, sizeof word);
    return word - ints{};
}
inline void store_16(int16_t* p, ints v) {
    typedef int16_t Short __attribute__((vector_size(BYTES / 2)));
    Short narrow = __builtin_convertvector(v, Short);
    std::memcpy(p, &narrow, sizeof narrow);
}

// lanes `from` of v;  of a and b, where b's lanes count from L on
#ifdef __clang__
inline ints rotated(ints v, ints from) {
    ints out;
    for (int l = 0; l < L; l++) out[l] = v[from[l]];
    return out;
}
inline ints blended(ints a, ints b, ints from) {
    ints out;
    for (int l = 0; l < L; l++) out[l] = from[l] < L ? a[from[l]] : b[from[l] - L];
    return out;
}
#else
inline ints rotated(ints v, ints from) { return __builtin_shuffle(v, from); }
inline ints blended(ints a, ints b, ints from) { return __builtin_shuffle(a, b, from); }
#endif

// After halves were added twice, one vector holds all four sums
static void totals(const ints (&p)[4], int32_t (&sums)[4]) {
    ints lane;
    for (int l = 0; l < L; l++) lane[l] = l;
    constexpr int H = L / 2, Q = L / 4;
    // two-vector shuffles: the low halves of both, the high halves of both
    ints low = lane + (lane & H), high = low + H;
    ints a = blended(p[0], p[1], low) + blended(p[0], p[1], high),
         b = blended(p[2], p[3], low) + blended(p[2], p[3], high);
    low = (lane & (Q - 1)) + (lane & Q) * 2, high = low + Q;
    low = low + (lane & H) * 2, high = high + (lane & H) * 2;
    ints sum = blended(a, b, low) + blended(a, b, high);
#pragma GCC unroll 4
    for (int half = Q / 2; half; half /= 2) sum += rotated(sum, (lane + half) & (L - 1));
    for (int v = 0; v < 4; v++) sums[v] = sum[v * Q];
}

// Lane l is the sum of vector l. Halves are added, then quarters, down to single lanes: lanes with the bit h come from
// one vector and lanes without it from another, each plus the lane across the bit
static vec<float> each_total(vec<float> (&v)[L]) {
    ints lane;
    for (int l = 0; l < L; l++) lane[l] = l;
#pragma GCC unroll 4
    for (int h = L / 2; h; h /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < h; i++) {
            const ints a = (ints)v[i], b = (ints)v[i + h], of_b = ((lane & h) != 0) & L;
            v[i] = (vec<float>)blended(a, b, lane + of_b) + (vec<float>)blended(a, b, (lane ^ h) + of_b);
        }
    return v[0];
}

// L rows of L words: to[w][l] = from[l][w] for w < W. Halves of the square are exchanged, then quarters, down to single
// words.
static void transpose(const int32_t* from, int64_t from_stride, int32_t* to, int64_t to_stride, int64_t W) {
    ints square[L], lane;
#pragma GCC unroll 16
    for (int l = 0; l < L; l++) square[l] = load(from + l * from_stride), lane[l] = l;
#pragma GCC unroll 4
    for (int h = L / 2; h; h /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < L; i++)
            if (!(i & h)) {
                ints a = square[i], b = square[i + h], is_b = (lane & h) != 0;
                square[i] = blended(a, b, lane + (is_b & (L - h)));
                square[i + h] = blended(a, b, lane + (is_b ? L - ints{} : h - ints{}));
            }
#pragma GCC unroll 16
    for (int w = 0; w < L; w++)
        if (w < W) store(to + w * to_stride, square[w]);
}

#endif
