// One step of a sampler on a CPU: guidance, x0, its threshold, x_s.   Room: kernels/ddim_step.py
//
// Without a dynamic threshold a task is some short rows, or a part of a long one. With it a task is a row: |x0| above
// 1, few as they are, are collected, and the number in the rank is found as on a GPU, by counting how many are larger,
// as integers of the same order; the last pass finds the row in the cache. Each number is written by one task: results
// do not depend on threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <type_traits>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

enum Threshold { NONE,
                 STATIC,
                 DYNAMIC };

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

// s = max(1, |x0_n| in the rank). `large` is space for D numbers: the |x0_n| that are not at most 1, NaN too
template <class T> static T bound(const Problem<T>& p, int64_t n, T* large) {
    using Key = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;    // in the same order, NaN above infinity
    Key low, high = Key(~(Key(1) << (8 * sizeof(T) - 1)));
    T s = 1, lane[LANES<T>];
    std::memcpy(&low, &s, sizeof low);
    int64_t found = 0;
    each_vector<T>(p.D, [&](int64_t d, int64_t count) {
        vec<T> x0 = predicted(p, n * p.D + d, count, load(p.x + n * p.D + d, count));
        store(lane, (vec<T>)((vec<Key>)x0 & high));
        for (int64_t l = 0; l < count; l++) {    // without a branch, which nobody could predict
            Key key;
            std::memcpy(&key, lane + l, sizeof key);
            large[found] = lane[l], found += key > low;
        }
    });
    const int64_t least_above = p.D - p.rank;
    if (found < least_above) return 1;
    while (low < high) {    // the least key that has fewer above it
        const Key middle = low + (high - low) / 2;
        vec<Key> above = {};    // a comparison gives -1
        each_vector<T>(found, [&](int64_t i, int64_t count) {
            above += (vec<Key>)load(large + i, count) > middle + vec<Key>{};
        });
        if (-total<Key>(above) < least_above) high = middle;
        else low = middle + 1;
    }
    std::memcpy(&s, &low, sizeof s);
    return s;
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

template <class T> void run_steps(const Problem<T>& p, T* work, int threads) {
    const int set = instruction_set();
    auto step = OF_SET(set, step<T>);
    auto bound = OF_SET(set, bound<T>);
    if (p.threshold == DYNAMIC)
        return parallel(p.D ? p.N : 0, worth_waking(threads, p.N * p.D, 2), [&](int64_t n, int t) {
            step(p, n, n + 1, 0, p.D, bound(p, n, work + t * p.D));
        });
    each_part(p.N, p.D, threads, p.seed ? 2 : 0.4,
              [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { step(p, n0, n1, d0, d1, T(1)); });
}

}    // namespace

// dtype: 0 float32, 3 float64. unconditional may be null; noise and seed too, where c is 0. threshold: 0 none, 1
// static, 2 dynamic, which needs work: a row of D numbers for each thread, N at most. Returns 0, or 1 for
// a bad argument.
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
                  (T*)work, threads);
    });
}
#endif
