// Vectors of numbers and the functions on them: a native kernel is written once in these, and this file has their code
// for each instruction set.
//
//   vec<T>, LANES<T>           a vector of T (float or double), and how many numbers it holds;  BYTES of a vector
//   load(p), store(p, v)       at any address
//   load_aligned(p), store_aligned(p, v)    at a multiple of BYTES
//   wide(p)                    LANES<double> numbers at any address, as doubles;  store_wide(p, v) stores them again
//   load(p, count)             the first `count` numbers, then 0;  store(p, v, count) stores the first `count` alone
//   each_vector<T>(H, f)       f(offset, count) for each vector of a row of H numbers
//   fused(a, b, c)             a b + c, rounded once or twice;  fused_minus(a, b, c) is c - a b
//   least(a, b), most(a, b)    the smaller and the larger; if b is NaN, b
//   wide<half>(v)              half 0 or 1 of a vector of floats, as doubles
//   inverse(v)                 1 / v, to about one rounding;  root(v) is the square root
//   total<T>(v), lowest<T>(v)  the sum of the lanes, the smallest lane
//   totals<T>(v)               lane l is total<T>(v[l]), of LANES<T> vectors, which it spends
//   exponential<T>(v), sigma<T>(v);  whole_exponential<T>(v) is also right where e^v is tiny, huge, 0 or infinite
//
// Operators work on vectors lane by lane; T + vec<T> too, and a comparison gives what ?: takes.
#ifndef SET
#include "each_set.h"    // which reads this file for each instruction set
#else

#if SET == AVX512
constexpr int BYTES = 64;
inline __m512 fused(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512d fused(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
inline __m512 fused_minus(__m512 a, __m512 b, __m512 c) { return _mm512_fnmadd_ps(a, b, c); }
inline __m512d fused_minus(__m512d a, __m512d b, __m512d c) { return _mm512_fnmadd_pd(a, b, c); }
// A division is slow: Newton's step squares the error of a guess that is right to 2^-14
inline __m512 inverse(__m512 v) {
    __m512 guess = _mm512_maskz_rcp14_ps(0xffff, v);
    return fused(guess, fused_minus(v, guess, 1 + __m512{}), guess);
}
inline __m512d inverse(__m512d v) {
    __m512d guess = _mm512_maskz_rcp14_pd(0xff, v);
    for (int i = 0; i < 2; i++) guess = fused(guess, fused_minus(v, guess, 1 + __m512d{}), guess);
    return guess;
}
inline __m512 root(__m512 v) { return _mm512_maskz_sqrt_ps(0xffff, v); }
inline __m512d root(__m512d v) { return _mm512_maskz_sqrt_pd(0xff, v); }
inline __m512 least(__m512 a, __m512 b) { return _mm512_maskz_min_ps(0xffff, a, b); }
inline __m512 most(__m512 a, __m512 b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline __m512d least(__m512d a, __m512d b) { return _mm512_maskz_min_pd(0xff, a, b); }
inline __m512d most(__m512d a, __m512d b) { return _mm512_maskz_max_pd(0xff, a, b); }
inline __m512 times_2_to(__m512 v, __m512 k) { return _mm512_maskz_scalef_ps(0xffff, v, k); }
inline __m512d times_2_to(__m512d v, __m512d k) { return _mm512_maskz_scalef_pd(0xff, v, k); }
template <int half> inline __m512d wide(__m512 v) {
    return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, v, half));
}
inline __m512d wide(const float* p) { return _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p)); }
inline __mmask16 first(int count) { return __mmask16((1u << count) - 1); }
inline __m512 load_part(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
inline __m512d load_part(const double* p, int count) { return _mm512_maskz_loadu_pd(__mmask8(first(count)), p); }
inline void store_part(float* p, __m512 v, int count) { _mm512_mask_storeu_ps(p, first(count), v); }
inline void store_part(double* p, __m512d v, int count) { _mm512_mask_storeu_pd(p, __mmask8(first(count)), v); }

#elif SET == AVX2
constexpr int BYTES = 32;
inline __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256d fused(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
inline __m256 fused_minus(__m256 a, __m256 b, __m256 c) { return _mm256_fnmadd_ps(a, b, c); }
inline __m256d fused_minus(__m256d a, __m256d b, __m256d c) { return _mm256_fnmadd_pd(a, b, c); }
template <class V> inline V inverse(V v) { return 1 / v; }
inline __m256 root(__m256 v) { return _mm256_sqrt_ps(v); }
inline __m256d root(__m256d v) { return _mm256_sqrt_pd(v); }
inline __m256 least(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
inline __m256 most(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
inline __m256d least(__m256d a, __m256d b) { return _mm256_min_pd(a, b); }
inline __m256d most(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }
template <int half> inline __m256d wide(__m256 v) {
    return _mm256_cvtps_pd(half ? _mm256_extractf128_ps(v, 1) : _mm256_castps256_ps128(v));
}
inline __m256d wide(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
inline __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_wide(int count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline __m256 load_part(const float* p, int count) { return _mm256_maskload_ps(p, first(count)); }
inline __m256d load_part(const double* p, int count) { return _mm256_maskload_pd(p, first_wide(count)); }
inline void store_part(float* p, __m256 v, int count) { _mm256_maskstore_ps(p, first(count), v); }
inline void store_part(double* p, __m256d v, int count) { _mm256_maskstore_pd(p, first_wide(count), v); }

#else
constexpr int BYTES = 16;
template <class V> inline V fused(V a, V b, V c) { return a * b + c; }
template <class V> inline V fused_minus(V a, V b, V c) { return c - a * b; }
template <class V> inline V inverse(V v) { return 1 / v; }
template <class V> inline V root(V v) {
    for (int l = 0; l < int(sizeof v / sizeof v[0]); l++)
        v[l] = sizeof v[0] == 4 ? __builtin_sqrtf(v[l]) : __builtin_sqrt(v[l]);
    return v;
}
template <class V> inline V least(V a, V b) { return a < b ? a : b; }
template <class V> inline V most(V a, V b) { return a > b ? a : b; }
template <int half, class V> inline auto wide(V v) {
    typedef double Wide __attribute__((vector_size(BYTES)));
    return Wide{v[2 * half], v[2 * half + 1]};
}
inline auto wide(const float* p) {
    typedef double Wide __attribute__((vector_size(BYTES)));
    return Wide{p[0], p[1]};
}
template <class T> inline auto load_part(const T* p, int count) {
    T __attribute__((vector_size(BYTES))) v = {};
    for (int i = 0; i < count; i++) v[i] = p[i];
    return v;
}
template <class T, class V> inline void store_part(T* p, V v, int count) {
    for (int i = 0; i < count; i++) p[i] = v[i];
}
#endif

template <class T> struct Vector {
    typedef T type __attribute__((vector_size(BYTES)));
};
template <class T> using vec = typename Vector<T>::type;
template <class T> constexpr int LANES = BYTES / sizeof(T);

template <class T> static inline vec<T> load(const T* p) {
    vec<T> v;
    std::memcpy(&v, p, BYTES);
    return v;
}
template <class T> static inline void store(T* p, vec<T> v) { std::memcpy(p, &v, BYTES); }
template <class T> static inline vec<T> load_aligned(const T* p) {
    return load((const T*)__builtin_assume_aligned(p, BYTES));
}
template <class T> static inline void store_aligned(T* p, vec<T> v) {
    store((T*)__builtin_assume_aligned(p, BYTES), v);
}

typedef float half_floats __attribute__((vector_size(BYTES / 2)));
static inline vec<double> wide(const double* p) { return load(p); }
static inline void store_wide(double* p, vec<double> v) { store(p, v); }
static inline void store_wide(float* p, vec<double> v) {
    half_floats narrow = __builtin_convertvector(v, half_floats);
    std::memcpy(p, &narrow, sizeof narrow);
}

// A row of H numbers is H / LANES vectors, and one more for the rest
template <class T, class F> static inline void each_vector(int64_t H, F f) {
    int64_t h = 0;
    for (; h + LANES<T> <= H; h += LANES<T>) f(h, int64_t(LANES<T>));
    if (h < H) f(h, H - h);
}
template <class T> static inline vec<T> load(const T* p, int64_t count) {
    return count == LANES<T> ? load(p) : load_part(p, int(count));
}
template <class T> static inline void store(T* p, vec<T> v, int64_t count) {
    if (count == LANES<T>) store(p, v);
    else store_part(p, v, int(count));
}

// One number of all lanes: of both halves, then of both halves of the result, ..., in registers
template <class T, int N, class V, class F> static inline T halves(V v, F meet) {    // v has N lanes
    if constexpr (N == 2) {
        return meet(v[0], v[1]);
    } else {
        typedef T Half __attribute__((vector_size(N / 2 * sizeof(T))));
        Half half[2];
        std::memcpy(half, &v, sizeof v);
        return halves<T, N / 2>(meet(half[0], half[1]), meet);
    }
}
template <class T> static inline T total(vec<T> v) {
    return halves<T, LANES<T>>(v, [](auto a, auto b) { return a + b; });
}

// The first step of both `halves`, of two vectors at once: lane l has a sum of b where l has the bit `half`, else of a
template <class T, int half, int... l>
static inline vec<T> both_halves(vec<T> a, vec<T> b, std::integer_sequence<int, l...>) {
    return vec<T>{(l & half ? b[l ^ half] : a[l])...} + vec<T>{(l & half ? b[l] : a[l | half])...};
}
template <class T, int half = LANES<T> / 2> static inline vec<T> totals(vec<T>* v) {
    if constexpr (half == 0) {
        return v[0];
    } else {
        for (int i = 0; i < half; i++)
            v[i] = both_halves<T, half>(v[i], v[i + half], std::make_integer_sequence<int, LANES<T>>());
        return totals<T, half / 2>(v);
    }
}
template <class T> static inline T lowest(vec<T> v) {
    return halves<T, LANES<T>>(v, [](auto a, auto b) { return a < b ? a : b; });
}

// e^a = 2^(k + r), k an integer and |r| <= 1/2; 2^r by the polynomial in Chebyshev's points there, which is right to
// 2^-28 (float) and 2^-57 (double). Beyond +-CUT the result is that of CUT. NaN stays NaN.
constexpr float POWER_OF_2[] = {1, .693147206704f, .240226509223f, .0555032722332f,
                                .00961805667562f, .00134004295178f, .000154614458588f};
constexpr double WIDE_POWER_OF_2[] = {1, .693147180559945309, .240226506959101596, .055504108664821627,
                                      .00961812910758725337, .00133335581464064689, .000154035304637285774,
                                      1.52527338415590236e-5, 1.32154325337403971e-6, 1.01780570865762424e-7,
                                      7.07419468342134165e-9, 4.45581811415037088e-10};
template <class T> constexpr T CUT = sizeof(T) == 4 ? T(87) : T(708);
template <class T> static inline vec<T> exponential(vec<T> a) {
    constexpr bool single = sizeof(T) == 4;
    using Int = std::conditional_t<single, int32_t, int64_t>;
    constexpr T MAGIC = single ? T(0x1.8p23) : T(0x1.8p52);    // adding MAGIC rounds to an integer
    constexpr int DEGREE = single ? 6 : 11;
    const vec<T> zero = {}, log2_e = T(0x1.71547652b82fep0) + zero;
    auto coefficient = [](int i) { return single ? T(POWER_OF_2[single ? i : 0]) : T(WIDE_POWER_OF_2[i]); };
    a = least(CUT<T> + zero, most(-CUT<T> + zero, a));
    vec<T> shifted = fused(a, log2_e, MAGIC + zero), r = fused(a, log2_e, MAGIC - shifted),
           power = coefficient(DEGREE) + zero;
    for (int i = DEGREE - 1; i >= 0; i--) power = fused(power, r, coefficient(i) + zero);
    // the low bits of `shifted` are k: times 2^k
    return (vec<T>)((vec<Int>)power + ((vec<Int>)shifted << (single ? 23 : 52)));
}

#if SET != AVX512
// v 2^k, k whole numbers. 2^k, which may have no number of its own, is multiplied in two halves
template <class V> static inline V times_2_to(V v, V k) {
    constexpr bool single = sizeof(v[0]) == 4;
    using Ints = vec<std::conditional_t<single, int32_t, int64_t>>;
    constexpr int BIAS = single ? 127 : 1023, PLACE = single ? 23 : 52;
    const V magic = (single ? 0x1.8p23f : 0x1.8p52) + V{};    // its low bits are k, as an integer, once k is added
    const Ints whole = (Ints)(k + magic) - (Ints)magic, half = whole >> 1;
    return v * (V)((half + BIAS) << PLACE) * (V)((whole - half + BIAS) << PLACE);
}
#endif

// The same for every a: 0 and infinity where e^a is below or above all numbers. a - k log 2 is exact but for the low
// part of log 2
template <class T> static inline vec<T> whole_exponential(vec<T> a) {
    constexpr bool single = sizeof(T) == 4;
    constexpr T MAGIC = single ? T(0x1.8p23) : T(0x1.8p52), END = single ? T(150) : T(800);
    constexpr T HIGH = single ? T(0.693359375) : T(6.93145751953125e-1);    // log 2: with the low part, from Cephes
    constexpr T LOW = single ? T(-2.12194440e-4) : T(1.42860682030941723212e-6);
    constexpr int DEGREE = single ? 6 : 11;
    const vec<T> zero = {}, log2_e = T(0x1.71547652b82fep0) + zero, magic = MAGIC + zero;
    auto coefficient = [](int i) { return single ? T(POWER_OF_2[single ? i : 0]) : T(WIDE_POWER_OF_2[i]); };
    a = least(END + zero, most(-END + zero, a));
    vec<T> k = fused(a, log2_e, magic) - magic, r = (fused_minus(k, HIGH + zero, a) - k * LOW) * log2_e,
           power = coefficient(DEGREE) + zero;
    for (int i = DEGREE - 1; i >= 0; i--) power = fused(power, r, coefficient(i) + zero);
    return times_2_to(power, k);
}

// sigma(a) = 1 / (1 + e^-a), to about two roundings
template <class T> static inline vec<T> sigma(vec<T> a) { return inverse(T(1) + exponential<T>(-a)); }

#endif
