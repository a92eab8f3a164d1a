// x_t = alpha x0 + sigma eps and its target, row by row, on a CPU.   Room: kernels/q_sample.py
//
// A task is some short rows, or a part of a long one. Its noise is drawn into the place of the last output, and stays
// in the first caches until that output takes it. Each number is written by one task: results do not depend on threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <algorithm>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

enum Target { NONE,
              EPS,
              V };

template <class T> struct Problem {
    const T* x0;       // (N, D)
    const int64_t* t;
    const double *alpha, *sigma;
    const T* eps;      // (N, D), or null: drawn from the seed
    uint64_t seed;
    T *x_t, *y;        // y is not written for NONE
    int64_t N, D, times;
    Target target;
};

}    // namespace

#define EACH_SET "../q_sample.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set
#include "cpu/noise.h"

// Columns d0 ... d1-1 of rows n0 ... n1-1
template <class T> static void noised(const Problem<T>& p, int64_t n0, int64_t n1, int64_t d0, int64_t d1) {
    T* drawn = p.target == NONE ? p.x_t : p.y;
    if (!p.eps) draw(p.seed, n0, n1, d0, d1, p.D, drawn);
    for (int64_t n = n0; n < n1; n++) {
        bool known = p.t[n] >= 0 && p.t[n] < p.times;
        const vec<T> zero = {}, alpha = T(known ? p.alpha[p.t[n]] : 0) + zero,
                     sigma = T(known ? p.sigma[p.t[n]] : 0) + zero;
        int64_t at = n * p.D + d0;
        const T *x0 = p.x0 + at, *eps = (p.eps ? p.eps : drawn) + at;
        each_vector<T>(d1 - d0, [&](int64_t d, int64_t count) {
            vec<T> x = load(x0 + d, count), e = load(eps + d, count);
            store(p.x_t + at + d, alpha * x + sigma * e, count);
            if (p.target == V) store(p.y + at + d, alpha * e - sigma * x, count);
            if (p.target == EPS && p.eps) store(p.y + at + d, e, count);
        });
    }
}

#else
// ---- tasks and the entry point --------------------------------------------------------------------------------------
namespace {

template <class T> void run_parts(const Problem<T>& p, int threads) {
    auto noised = BEST(noised<T>);
    each_part(p.N, p.D, threads, p.eps ? 0.3 : 1.5,
              [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { noised(p, n0, n1, d0, d1); });
}

}    // namespace

// dtype: 0 float32, 3 float64. eps or seed is null. target: 0 none, 1 eps, 2 v. Returns 0, or 1 for a bad argument.
extern "C" int q_sample_cpu(int dtype, const void* x0, const void* t, const void* alpha, const void* sigma,
                            const void* eps, const void* seed, void* x_t, void* y, int64_t target, int64_t N, int64_t D,
                            int64_t T, int threads) {
    if (N < 0 || D < 0 || T < 1 || threads < 1 || target < NONE || target > V) return 1;
    if (N && D && !eps == !seed) return 1;    // what is empty has no address
    return with_float_or_double(dtype, [&](auto zero) {
        using X = decltype(zero);
        run_parts(Problem<X>{(const X*)x0, (const int64_t*)t, (const double*)alpha, (const double*)sigma, (const X*)eps,
                             seed ? *(const uint64_t*)seed : 0, (X*)x_t, (X*)y, N, D, T, Target(target)},
                  threads);
    });
}
#endif
