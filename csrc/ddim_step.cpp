// One step of a sampler on a CPU: guidance, x0, its threshold, x_s.   Room: kernels/ddim_step.py
//
// Without a dynamic threshold a task is some short rows, or a part of a long one. With it a task is a row: |x0| above
// 1, few as they are, are collected as integers of the same order, and the rank is selected among them; the second
// pass finds the row in the cache. Each number is written by one task: results do not depend on threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <algorithm>
#include <type_traits>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

enum Threshold { NONE,
                 STATIC,
                 DYNAMIC };

template <class T> using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

template <class T> struct Problem {
    const T *x, *o, *u, *noise;    // (N, D); u and noise may be null
    const uint64_t* seed;          // noise is drawn from it, if it is not null
    T *x_s, w, p, q, a, k, c;
    Threshold threshold;
    int64_t rank, N, D;
};

}    // namespace

#define EACH_SET "../ddim_step.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set
#include "cpu/noise.h"

template <class T> static inline vec<T> predicted(const Problem<T>& p, int64_t at, int64_t count, vec<T> x) {
    const vec<T> zero = {};
    vec<T> out = load(p.o + at, count);
    if (p.u) {
        vec<T> u = load(p.u + at, count);
        out = u + (p.w + zero) * (out - u);
    }
    return (p.p + zero) * x + (p.q + zero) * out;
}

// The |x0| of row n that are not at most 1, NaN too, as integers; how many
template <class T> static int64_t beyond_one(const Problem<T>& p, int64_t n, Key<T>* key) {
    int64_t found = 0;
    T lane[LANES<T>];
    each_vector<T>(p.D, [&](int64_t d, int64_t count) {
        vec<T> x0 = predicted(p, n * p.D + d, count, load(p.x + n * p.D + d, count));
        store(lane, x0);
        for (int64_t l = 0; l < count; l++) {
            Key<T> bits;
            std::memcpy(&bits, lane + l, sizeof bits);
            key[found] = bits & (Key<T>(-1) >> 1);
            found += !(lane[l] <= 1 && lane[l] >= -1);
        }
    });
    return found;
}

// Columns d0 ... d1-1 of rows n0 ... n1-1, with x0 within -s ... s
template <class T> static void step(const Problem<T>& p, int64_t n0, int64_t n1, int64_t d0, int64_t d1, T s) {
    if (p.seed) draw(*p.seed, n0, n1, d0, d1, p.D, p.x_s);
    const T* noise = p.seed ? p.x_s : p.noise;
    const vec<T> zero = {}, most = s + zero, least = -s + zero, a = p.a + zero, k = p.k + zero, c = p.c + zero;
    for (int64_t n = n0; n < n1; n++)
        each_vector<T>(d1 - d0, [&](int64_t d, int64_t count) {
            int64_t at = n * p.D + d0 + d;
            vec<T> x = load(p.x + at, count), x0 = predicted(p, at, count, x);
            if (p.threshold != NONE) x0 = x0 > most ? most : x0, x0 = x0 < least ? least : x0;    // NaN stays NaN
            if (p.threshold == DYNAMIC) x0 = x0 / most;
            vec<T> x_s = a * x0 + k * x;
            if (noise) x_s += c * load(noise + at, count);
            store(p.x_s + at, x_s, count);
        });
}

#else
// ---- tasks and the entry point --------------------------------------------------------------------------------------
namespace {

// max(1, |x0| in the rank), where `found` of the D lie beyond 1
template <class T> T bound(const Problem<T>& p, Key<T>* key, int64_t found) {
    int64_t rank = p.rank - (p.D - found);
    if (rank < 0) return 1;
    std::nth_element(key, key + rank, key + found);
    T s;
    std::memcpy(&s, key + rank, sizeof s);
    return s;
}

template <class T> void run_steps(const Problem<T>& p, Key<T>* work, int threads) {
    const int set = instruction_set();
    auto step = OF_SET(set, step<T>);
    auto beyond_one = OF_SET(set, beyond_one<T>);
    if (p.threshold == DYNAMIC)
        return parallel(p.D ? p.N : 0, worth_waking(threads, p.N * p.D, 15), [&](int64_t n, int t) {
            Key<T>* key = work + t * p.D;
            step(p, n, n + 1, 0, p.D, bound(p, key, beyond_one(p, n, key)));
        });
    each_part(p.N, p.D, threads, p.seed ? 2 : 0.4,
              [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { step(p, n0, n1, d0, d1, T(1)); });
}

}    // namespace

// dtype: 0 float32, 3 float64. unconditional may be null; noise and seed too, where c is 0. threshold: 0 none, 1
// static, 2 dynamic, which needs work: a row of D numbers for each thread. Returns 0, or 1 for a bad argument.
extern "C" int ddim_step_cpu(int dtype, const void* x, const void* output, const void* unconditional, const void* noise,
                             const void* seed, void* x_s, void* work, double w, double p, double q, double a, double k,
                             double c, int64_t threshold, int64_t rank, int64_t N, int64_t D, int threads) {
    if (N < 0 || D < 0 || threads < 1 || threshold < 0 || threshold > DYNAMIC) return 1;
    if (N && D && (rank < 0 || rank >= D || (c && !noise == !seed))) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        run_steps(Problem<T>{(const T*)x, (const T*)output, (const T*)unconditional, c ? (const T*)noise : nullptr,
                             c ? (const uint64_t*)seed : nullptr, (T*)x_s, T(w), T(p), T(q), T(a), T(k), T(c),
                             Threshold(threshold), rank, N, D},
                  (Key<T>*)work, threads);
    });
}
#endif
