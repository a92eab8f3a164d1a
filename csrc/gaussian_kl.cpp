// A draw from a Gaussian with its KL from N(0, I), and their gradient, on a CPU.   Room: kernels/gaussian_kl.py
//
// A task is some short rows, or a part of a long one, whose sum goes to `sums`; these are added in order at the end.
// Noise from a seed is drawn into the place of an output that takes it from there. Results do not depend on the number
// of threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <algorithm>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

constexpr int64_t BLOCK = 256;    // terms whose sum is taken in T; the sums of blocks are added in double

template <class T> struct Problem {
    const T *mu, *l;          // (N, D)
    const T* eps;             // (N, D), or null: drawn from the seed
    uint64_t seed;
    int64_t N, D;
};

template <class T> struct Forward : Problem<T> {
    T *z, *kl;                // (N, D), (N)
    double* sums;             // (N, parts): twice the KL of each part of a row
};

template <class T> struct Gradient : Problem<T> {
    const T *dz, *dkl;        // (N, D), (N)
    T *dmu, *dl;              // (N, D)
};

inline int64_t parts_of(int64_t D) { return ceil_div(D, PART); }

}    // namespace

#define EACH_SET "../gaussian_kl.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set
#include "cpu/noise.h"

// r(l) = e^l - 1 - l, of l and e^l: for |l| < 1, where the terms cancel, l^2 (1/2! + l/3! + l^2/4! + ...)
template <class T> static inline vec<T> excess(vec<T> l, vec<T> e_l) {
    constexpr int TERMS = sizeof(T) == 4 ? 11 : 18;    // the next one is below the roundings
    const vec<T> zero = {}, large = T(1000) + zero;    // e^1000 is infinite: no infinity is subtracted from another
    T factorial = 1;
    vec<T> series = zero;
    for (int k = 2; k < TERMS + 2; k++) factorial *= k;
    for (int k = TERMS + 1; k >= 2; factorial /= k--) series = fused(series, l, 1 / factorial + zero);
    return most(l, -l) < T(1) ? l * l * series : e_l - T(1) - least(large, l);
}

// Columns d0 ... d1-1 of row n -> twice their part of kl_n
template <class T> static double of_row(const Forward<T>& p, int64_t n, int64_t d0, int64_t d1) {
    const T *mu = p.mu + n * p.D, *l = p.l + n * p.D, *eps = (p.eps ? p.eps : p.z) + n * p.D;
    T* z = p.z + n * p.D;
    auto at = [&](int64_t d, int64_t count) {
        vec<T> m = load(mu + d, count), v = load(l + d, count), e = load(eps + d, count);
        store(z + d, m + whole_exponential<T>(T(0.5) * v) * e, count);
        return m * m + excess<T>(v, whole_exponential<T>(v));
    };
    double sum = 0;
    for (int64_t d = d0, end; d < d1; d = end) {
        end = std::min(d1, d + BLOCK);
        vec<T> first = {}, second = {};    // two sums at once, as an addition takes its time
        for (; d + 2 * LANES<T> <= end; d += 2 * LANES<T>)
            first += at(d, LANES<T>), second += at(d + LANES<T>, LANES<T>);
        for (; d < end; d += LANES<T>) first += at(d, std::min<int64_t>(LANES<T>, end - d));
        sum += total<T>(first + second);
    }
    return sum;
}

// Columns d0 ... d1-1 of rows n0 ... n1-1
template <class T> static void forward(const Forward<T>& p, int64_t n0, int64_t n1, int64_t d0, int64_t d1) {
    if (!p.eps) draw(p.seed, n0, n1, d0, d1, p.D, p.z);
    for (int64_t n = n0; n < n1; n++) p.sums[n * parts_of(p.D) + d0 / PART] = of_row(p, n, d0, d1);
}

template <class T> static void backward(const Gradient<T>& p, int64_t n0, int64_t n1, int64_t d0, int64_t d1) {
    if (!p.eps) draw(p.seed, n0, n1, d0, d1, p.D, p.dl);
    for (int64_t n = n0; n < n1; n++) {
        const int64_t row = n * p.D;
        const T* eps = p.eps ? p.eps : p.dl;
        const vec<T> zero = {}, dkl = p.dkl[n] + zero;
        each_vector<T>(d1 - d0, [&](int64_t d, int64_t count) {
            const int64_t i = row + d0 + d;
            vec<T> mu = load(p.mu + i, count), l = load(p.l + i, count), dz = load(p.dz + i, count);
            vec<T> sigma_eps = whole_exponential<T>(T(0.5) * l) * load(eps + i, count), e = whole_exponential<T>(l);
            vec<T> slope = most(l, -l) < T(1) ? l + excess<T>(l, e) : e - T(1);
            store(p.dmu + i, dz + dkl * mu, count);    // forward was: z = mu + sigma eps, kl = 1/2 sum mu^2 + r(l)
            store(p.dl + i, T(0.5) * (dz * sigma_eps + dkl * slope), count);
        });
    }
}

#else
// ---- tasks and the entry points -------------------------------------------------------------------------------------
namespace {

template <class T> void run_forward(const Forward<T>& p, int threads) {
    auto forward = BEST(forward<T>);
    each_part(p.N, p.D, threads, p.eps ? 0.4 : 1.5,
              [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { forward(p, n0, n1, d0, d1); });
    for (int64_t n = 0, parts = parts_of(p.D); n < p.N; n++) {
        double sum = 0;
        for (int64_t i = 0; i < parts; i++) sum += p.sums[n * parts + i];
        p.kl[n] = T(0.5 * sum);
    }
}

template <class T> void run_backward(const Gradient<T>& p, int threads) {
    auto backward = BEST(backward<T>);
    each_part(p.N, p.D, threads, p.eps ? 0.4 : 1.5,
              [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { backward(p, n0, n1, d0, d1); });
}

template <class T>
Problem<T> problem(const void* mu, const void* l, const void* eps, const void* seed, int64_t N, int64_t D) {
    return {(const T*)mu, (const T*)l, (const T*)eps, seed ? *(const uint64_t*)seed : 0, N, D};
}

// What is empty has no address
inline bool wrong(const void* eps, const void* seed, int64_t N, int64_t D, int threads) {
    return N < 0 || D < 0 || threads < 1 || (N && D && !eps == !seed);
}

}    // namespace

// Bytes of `sums`: of any number of threads
extern "C" int64_t gaussian_kl_cpu_workspace(int64_t N, int64_t D, int) {
    return N * parts_of(D) * int64_t(sizeof(double));
}

// dtype: 0 float32, 3 float64. eps or seed is null. Both return 0, or 1 for a bad argument.
extern "C" int gaussian_kl_cpu(int dtype, const void* mu, const void* l, const void* eps, const void* seed, void* z,
                               void* kl, void* sums, int64_t N, int64_t D, int threads) {
    if (wrong(eps, seed, N, D, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        run_forward(Forward<T>{problem<T>(mu, l, eps, seed, N, D), (T*)z, (T*)kl, (double*)sums}, threads);
    });
}

extern "C" int gaussian_kl_backward_cpu(int dtype, const void* dz, const void* dkl, const void* mu, const void* l,
                                        const void* eps, const void* seed, void* dmu, void* dl, int64_t N, int64_t D,
                                        int threads) {
    if (wrong(eps, seed, N, D, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        run_backward(Gradient<T>{problem<T>(mu, l, eps, seed, N, D), (const T*)dz, (const T*)dkl, (T*)dmu, (T*)dl},
                     threads);
    });
}
#endif
