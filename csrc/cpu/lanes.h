// One source, compiled for every instruction set that a CPU may have; the choice is made when it runs.
//
//   template <class T> struct Walks {...};       what LANES_OF gives: its walks<T>() returns one for the instruction
//                                                set at hand
//   #define LANES_OF "nade_lanes.h"
//   #include "lanes.h"                           inside a namespace without a name, after cpu.h: chosen<T>() is the
//                                                walks<T>() of the best

#define EACH_TYPE(of) of(float) of(double)

namespace narrow {    // what every compiler makes of vectors of 16 bytes
constexpr int BYTES = 16;
template <class V> inline V fused(V a, V b, V c) { return a * b + c; }
template <class V> inline V inverse(V v) { return 1 / v; }
template <class V> inline V least(V a, V b) { return a < b ? a : b; }
template <class V> inline V most(V a, V b) { return a > b ? a : b; }
#define PART(T)                                                                       \
    inline auto part(const T* p, int rest) {                                          \
        T v[BYTES / sizeof(T)] = {};                                                  \
        for (int i = 0; i < rest; i++) v[i] = p[i];                                   \
        T __attribute__((vector_size(BYTES))) all;                                    \
        std::memcpy(&all, v, BYTES);                                                  \
        return all;                                                                   \
    }                                                                                 \
    inline void store_part(T* p, T __attribute__((vector_size(BYTES))) v, int rest) { \
        for (int i = 0; i < rest; i++) p[i] = v[i];                                   \
    }
EACH_TYPE(PART)
#undef PART
#include "vectors.h"
#include LANES_OF
}    // namespace narrow

#ifdef WIDE_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int BYTES = 32;
inline __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256d fused(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
template <class V> inline V inverse(V v) { return 1 / v; }
inline __m256 least(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
inline __m256 most(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
inline __m256d least(__m256d a, __m256d b) { return _mm256_min_pd(a, b); }
inline __m256d most(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }
inline __m256i first(int rest) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(rest), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_wide(int rest) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(rest), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline __m256 part(const float* p, int rest) { return _mm256_maskload_ps(p, first(rest)); }
inline __m256d part(const double* p, int rest) { return _mm256_maskload_pd(p, first_wide(rest)); }
inline void store_part(float* p, __m256 v, int rest) { _mm256_maskstore_ps(p, first(rest), v); }
inline void store_part(double* p, __m256d v, int rest) { _mm256_maskstore_pd(p, first_wide(rest), v); }
#include "vectors.h"
#include LANES_OF
}    // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,prefer-vector-width=512")
namespace avx512 {
constexpr int BYTES = 64;
inline __m512 fused(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
inline __m512d fused(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
// Division is slow. A guess that is right to 2^-14, bettered by Newton: its error is squared
inline __m512 inverse(__m512 v) {
    __m512 guess = _mm512_maskz_rcp14_ps(0xffff, v);
    return fused(guess, _mm512_fnmadd_ps(v, guess, 1 + __m512{}), guess);
}
inline __m512d inverse(__m512d v) {
    __m512d guess = _mm512_maskz_rcp14_pd(0xff, v);
    for (int i = 0; i < 2; i++) guess = fused(guess, _mm512_fnmadd_pd(v, guess, 1 + __m512d{}), guess);
    return guess;
}
inline __m512 least(__m512 a, __m512 b) { return _mm512_maskz_min_ps(0xffff, a, b); }
inline __m512 most(__m512 a, __m512 b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline __m512d least(__m512d a, __m512d b) { return _mm512_maskz_min_pd(0xff, a, b); }
inline __m512d most(__m512d a, __m512d b) { return _mm512_maskz_max_pd(0xff, a, b); }
inline __m512 part(const float* p, int rest) { return _mm512_maskz_loadu_ps(__mmask16((1u << rest) - 1), p); }
inline __m512d part(const double* p, int rest) { return _mm512_maskz_loadu_pd(__mmask8((1u << rest) - 1), p); }
inline void store_part(float* p, __m512 v, int rest) { _mm512_mask_storeu_ps(p, __mmask16((1u << rest) - 1), v); }
inline void store_part(double* p, __m512d v, int rest) { _mm512_mask_storeu_pd(p, __mmask8((1u << rest) - 1), v); }
#include "vectors.h"
#include LANES_OF
}    // namespace avx512
#pragma GCC pop_options
#endif

// The widest that this processor has, or the one that GENMINI_CPU names (if the processor has it)
template <class T> const Walks<T>& chosen() {
#ifdef WIDE_X86
    const char* wanted = std::getenv("GENMINI_CPU");
    auto asked = [&](const char* name) { return !wanted || !*wanted || std::strcmp(wanted, name) == 0; };
    if (asked("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        return avx512::walks<T>();
    if (asked("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::walks<T>();
#endif
    return narrow::walks<T>();
}
