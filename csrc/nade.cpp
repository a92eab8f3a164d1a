// NADE on a CPU: logits and samples row by row, the gradient tile of hidden units by tile.   Room: kernels/nade.py
//
// The pass: up to ROWS rows are one task; they share the loads of V_d and W_d, and keep a_d and h_d = sigma(a_d) in the nearest cache.
// A pixel of 0 changes neither, so its sigmoids, which are most of the work, are not computed again.
// The gradient: nothing flows between hidden units on the way back, so a task is a few vectors of units, for all rows.
// Which task computes what changes no result: every sum has the order that csrc/nade_lanes.h writes, whatever the number of threads.

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include "helpers.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE_X86 1    // the other instruction sets can be compiled here, whatever the compiler's own target is
#include <immintrin.h>
#endif

namespace {

constexpr int ROWS = 16;     // of a task of the pass
constexpr int GROUP = 32;    // rows of the gradient that are added in the nearest cache
constexpr int CHUNK = 32;    // pixels between two marks of the gradient
constexpr int WIDEST = 4;    // vectors of a task of the gradient

// Whole vectors of every width; an odd number of cache lines, so that rows spread over the cache
template <class T> constexpr int64_t padded(int64_t H) { return (H + 15) / 32 * 32 + 16; }

template <class T> struct Pass {
    const T* u;         // (N, D), or null if all pixels are known
    uint8_t* x;         // (N, D): x[:, :known] is read, the rest is written
    int64_t known;
    const T *W, *V, *b, *c;    // W transposed: (D, H) as V
    T* logits;          // (N, D)
    int64_t N, D, H;
};

template <class T> struct Gradient {
    const T* dl;        // (N, D)
    const uint8_t* x;
    const T *W, *V, *c;
    T *dW, *dV, *dc;    // (D, H), (D, H), (H)
    int64_t N, D, H;
};

template <class T> struct Walks {
    int lanes;
    void (*pass)(const Pass<T>&, int64_t, int64_t, T*, T*);
    void (*units)(const Gradient<T>&, int64_t, int, T*);
};

#define EACH_TYPE(of) of(float) of(double)
#define WALKS                                                      \
    template <class T> const Walks<T>& walks() {                   \
        static const Walks<T> all = {LANES<T>, pass<T>, units<T>}; \
        return all;                                                \
    }

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
#include "nade_lanes.h"
WALKS
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
inline __m256i first(int rest) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(rest), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
inline __m256i first_wide(int rest) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(rest), _mm256_setr_epi64x(0, 1, 2, 3)); }
inline __m256 part(const float* p, int rest) { return _mm256_maskload_ps(p, first(rest)); }
inline __m256d part(const double* p, int rest) { return _mm256_maskload_pd(p, first_wide(rest)); }
inline void store_part(float* p, __m256 v, int rest) { _mm256_maskstore_ps(p, first(rest), v); }
inline void store_part(double* p, __m256d v, int rest) { _mm256_maskstore_pd(p, first_wide(rest), v); }
#include "nade_lanes.h"
WALKS
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
#include "nade_lanes.h"
WALKS
}    // namespace avx512
#pragma GCC pop_options
#endif

// The widest that this processor has, or the one that GENMINI_CPU names (if the processor has it)
template <class T> const Walks<T>& chosen() {
#ifdef WIDE_X86
    const char* wanted = std::getenv("GENMINI_CPU");
    auto asked = [&](const char* name) { return !wanted || !*wanted || std::strcmp(wanted, name) == 0; };
    if (asked("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return avx512::walks<T>();
    if (asked("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::walks<T>();
#endif
    return narrow::walks<T>();
}

struct Environment {    // round to nearest, keep subnormals: whatever the caller's thread was set to
    std::fenv_t saved;
    Environment() { std::fegetenv(&saved), std::fesetenv(FE_DFL_ENV); }
    ~Environment() { std::fesetenv(&saved); }
};

// work(task, thread) for every task, each by whoever is free
template <class F> void parallel(int64_t tasks, int threads, F work) {
    std::atomic<int64_t> next{0};
    auto run = [&](int t) {
        Environment environment;
        for (int64_t task; (task = next++) < tasks;) work(task, t);
    };
    Helpers::share(int(std::min<int64_t>(threads, tasks)), run);
}

template <class T> T* aligned(void* workspace, int64_t numbers_before) {
    return (T*)((uintptr_t(workspace) + 63) / 64 * 64) + numbers_before;
}

template <class T> int64_t pass_numbers(int64_t H) { return 2 * ROWS * padded<T>(H); }
template <class T> int64_t gradient_numbers(int64_t D) {
    return (GROUP * (2 + (D + CHUNK - 1) / CHUNK) + 3 * CHUNK + 1) * WIDEST * int64_t(64 / sizeof(T));
}

template <class T> void run_pass(const Pass<T>& p, void* workspace, int threads) {
    int64_t tasks = std::max<int64_t>((p.N + ROWS - 1) / ROWS, std::min<int64_t>(threads, p.N));
    if (p.N > 4 * threads) tasks = (tasks + threads - 1) / threads * threads;    // as many for each thread
    auto& walks = chosen<T>();
    parallel(tasks, threads, [&](int64_t task, int t) {
        T* a = aligned<T>(workspace, t * pass_numbers<T>(p.H));
        walks.pass(p, task * p.N / tasks, (task + 1) * p.N / tasks, a, a + ROWS * padded<T>(p.H));
    });
}

template <class T> void run_gradient(const Gradient<T>& g, void* workspace, int threads) {
    auto& walks = chosen<T>();
    int64_t vectors = (g.H + walks.lanes - 1) / walks.lanes;
    int width = int(std::clamp<int64_t>((vectors + threads - 1) / threads, 1, WIDEST));
    parallel((vectors + width - 1) / width, threads, [&](int64_t tile, int t) {
        walks.units(g, tile, width, aligned<T>(workspace, t * gradient_numbers<T>(g.D)));
    });
}

}    // namespace

// Bytes of the workspace of nade_cpu and of nade_backward_cpu. dtype: 0 float32, 3 float64
extern "C" int64_t nade_cpu_workspace(int dtype, int64_t D, int64_t H, int threads) {
    int64_t single = std::max(pass_numbers<float>(H), gradient_numbers<float>(D));
    int64_t wide = std::max(pass_numbers<double>(H), gradient_numbers<double>(D));
    return threads * (dtype == 0 ? single * 4 : wide * 8) + 64;
}

// logits (N, D), and x[:, known:] drawn with u (null if known = D). W is transposed, (D, H). Returns 0, or 1 for a bad argument.
extern "C" int nade_cpu(int dtype, const void* u, void* x, int64_t known, const void* W, const void* V, const void* b, const void* c,
                        void* logits, void* workspace, int64_t N, int64_t D, int64_t H, int threads) {
    if ((dtype != 0 && dtype != 3) || N < 0 || D < 0 || H < 0 || threads < 1 || known < 0 || known > D) return 1;
    auto run = [&](auto zero) {
        using T = decltype(zero);
        Pass<T> p = {(const T*)u, (uint8_t*)x, known, (const T*)W, (const T*)V, (const T*)b, (const T*)c, (T*)logits, N, D, H};
        run_pass(p, workspace, threads);
    };
    dtype == 0 ? run(float()) : run(double());
    return 0;
}

// dW (transposed, (D, H)), dV (D, H), dc (H) from dl (N, D)
extern "C" int nade_backward_cpu(int dtype, const void* dl, const void* x, const void* W, const void* V, const void* c, void* dW, void* dV,
                                 void* dc, void* workspace, int64_t N, int64_t D, int64_t H, int threads) {
    if ((dtype != 0 && dtype != 3) || N < 0 || D < 0 || H < 0 || threads < 1) return 1;
    auto run = [&](auto zero) {
        using T = decltype(zero);
        Gradient<T> g = {(const T*)dl, (const uint8_t*)x, (const T*)W, (const T*)V, (const T*)c, (T*)dW, (T*)dV, (T*)dc, N, D, H};
        run_gradient(g, workspace, threads);
    };
    dtype == 0 ? run(float()) : run(double());
    return 0;
}
