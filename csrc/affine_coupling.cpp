// y = x e^s + t and logdet_n = sum_d s_nd, its inverse, and the gradients of both, on a CPU.
// Room: kernels/affine_coupling.py
//
// A task is some short rows, or a part of a long one: its numbers lie side by side, and those of y need not know their
// row. Each number is written by one task, and D decides in which order a row is added: results do not depend on the
// number of threads, and logdet not on the instruction set either.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

template <class T> struct Coupling {    // of the inverse, x is y and y is x
    const T *x, *s, *t;                 // (N, D)
    T *y, *logdet;                      // (N, D), (N)
    double* part;                       // (N, parts of a row, 2): their sums, where a row has several parts
    int64_t N, D;
};

template <class T> struct Gradient {    // of the inverse, dy is dx and dx is dy
    const T *dy, *dlogdet;              // (N, D), (N)
    const T *kept, *s, *t;              // (N, D); kept is x where t is null, else y
    T *dx, *ds;                         // (N, D)
    int64_t N, D;
};

}    // namespace

#define EACH_SET "../affine_coupling.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the arithmetic, read by csrc/cpu/each_set.h for each instruction set ----------------------------
#include "cpu/row_sums.h"

template <bool inverse, class S> static inline double logdet_of(const S& sum) {
    return inverse ? -(sum.high + sum.low) : sum.high + sum.low;
}

// y of `count` numbers from i on; returns their s
template <bool inverse, class T> static inline vec<T> couple(const Coupling<T>& p, int64_t i, int64_t count) {
    const vec<T> x = load(p.x + i, count), s = load(p.s + i, count), t = load(p.t + i, count);
    store(p.y + i, inverse ? (x - t) * whole_exponential<T>(-s) : fused(x, whole_exponential<T>(s), t), count);
    return s;
}

// Rows of fewer than SUMS numbers lie side by side: a vector takes what it holds, of whatever row
template <bool inverse, class T> static void short_rows(const Coupling<T>& p, int64_t n0, int64_t n1) {
    each_vector<T>((n1 - n0) * p.D, [&](int64_t i, int64_t count) { couple<inverse>(p, n0 * p.D + i, count); });
    if (p.D == 2) {    // a flow of the plane; a sum of two is rounded once in T too
        const T* s = p.s;
        T* logdet = p.logdet;
        for (int64_t n = n0; n < n1; n++) logdet[n] = inverse ? -(s[2 * n] + s[2 * n + 1]) : s[2 * n] + s[2 * n + 1];
        return;
    }
    for (int64_t n = n0; n < n1; n++) {
        RowSum<T> sum = {0, 0};
        for (int64_t d = 0; d < p.D; d++) sum.add(p.s[n * p.D + d]);
        p.logdet[n] = T(logdet_of<inverse>(sum));
    }
}

// Columns d0 ... d1-1 of rows n0 ... n1-1
template <bool inverse, class T>
static void couple_part(const Coupling<T>& p, int64_t n0, int64_t n1, int64_t d0, int64_t d1) {
    if (p.D < SUMS) return short_rows<inverse>(p, n0, n1);
    for (int64_t n = n0; n < n1; n++) {
        RowSums<T> sums;
        each_of_sums<T>(d0, d1, [&](int j, int64_t d, int64_t count) {
            sums.add(j, couple<inverse>(p, n * p.D + d, count));
        });
        const RowSum<T> sum = sums.total_of_all();
        if (p.D <= PART) {
            p.logdet[n] = T(logdet_of<inverse>(sum));
        } else {
            double* part = p.part + (n * ceil_div(p.D, PART) + d0 / PART) * 2;
            part[0] = sum.high, part[1] = sum.low;
        }
    }
}

// logdet of row n from its parts, of which there may be none
template <bool inverse, class T> static void add_parts(const Coupling<T>& p, int64_t n) {
    const int64_t parts = ceil_div(p.D, PART);
    Sum<true, double> sum = {0, 0};
    for (const double* part = p.part + n * parts * 2; part < p.part + (n + 1) * parts * 2; part += 2)
        sum.add({part[0], part[1]});
    p.logdet[n] = T(logdet_of<inverse>(sum));
}

template <bool inverse, class T>
static void backward(const Gradient<T>& p, int64_t n0, int64_t n1, int64_t d0, int64_t d1) {
    auto pull = [&](int64_t i, int64_t count, vec<T> dlogdet) {    // of `count` numbers from i on
        const vec<T> dy = load(p.dy + i, count), s = load(p.s + i, count), kept = load(p.kept + i, count);
        const vec<T> es = whole_exponential<T>(inverse ? -s : s);
        store(p.dx + i, dy * es, count);
        if (inverse) {    // was: x = (y - t) e^-s
            store(p.ds + i, fused_minus(dy, kept, -dlogdet), count);
        } else {    // was: y = x e^s + t
            const vec<T> xes = p.t ? kept - load(p.t + i, count) : kept * es;
            store(p.ds + i, fused(dy, xes, dlogdet), count);
        }
    };
    if (p.D < SUMS) {    // short rows, as above
        const int64_t first = n0 * p.D, many = (n1 - n0) * p.D;
        T of_row[PART];
        for (int64_t n = n0; n < n1; n++)
            for (int64_t d = 0; d < p.D; d++) of_row[n * p.D + d - first] = p.dlogdet[n];
        return each_vector<T>(many, [&](int64_t i, int64_t count) { pull(first + i, count, load(of_row + i, count)); });
    }
    for (int64_t n = n0; n < n1; n++)
        each_vector<T>(d1 - d0, [&](int64_t d, int64_t count) {
            pull(n * p.D + d0 + d, count, p.dlogdet[n] + vec<T>{});
        });
}

#else    // ---- the tasks, and the C functions that Python calls -----------------------------------------------------
namespace {

template <bool inverse>
int forward(int dtype, const void* x, const void* s, const void* t, void* y, void* logdet, void* part, int64_t N,
            int64_t D, int threads) {
    if (N < 0 || D < 0 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const Coupling<T> p = {(const T*)x, (const T*)s, (const T*)t, (T*)y, (T*)logdet, (double*)part, N, D};
        const int set = instruction_set();
        const auto couple = OF_SET(set, couple_part<inverse, T>);
        const auto add_parts = OF_SET(set, add_parts<inverse, T>);
        each_part(N, D, threads, 0.2,
                  [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { couple(p, n0, n1, d0, d1); });
        for (int64_t n = 0; n < N && (D == 0 || D > PART); n++) add_parts(p, n);
    });
}

template <bool inverse>
int gradient(int dtype, const void* dy, const void* dlogdet, const void* kept, const void* s, const void* t, void* dx,
             void* ds, int64_t N, int64_t D, int threads) {
    if (N < 0 || D < 0 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const Gradient<T> p = {(const T*)dy, (const T*)dlogdet, (const T*)kept, (const T*)s, (const T*)t, (T*)dx,
                               (T*)ds, N, D};
        const auto backward = BEST(backward<inverse, T>);
        each_part(N, D, threads, 0.2,
                  [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { backward(p, n0, n1, d0, d1); });
    });
}

}    // namespace

// dtype: 0 float32, 3 float64. part has room for 2 ceil(D / PART) doubles a row. All return 0, or 1 for a bad argument.
extern "C" int affine_coupling_cpu(int dtype, const void* x, const void* s, const void* t, void* y, void* logdet,
                                   void* part, int64_t N, int64_t D, int threads) {
    return forward<false>(dtype, x, s, t, y, logdet, part, N, D, threads);
}
extern "C" int affine_coupling_inverse_cpu(int dtype, const void* y, const void* s, const void* t, void* x,
                                           void* logdet, void* part, int64_t N, int64_t D, int threads) {
    return forward<true>(dtype, y, s, t, x, logdet, part, N, D, threads);
}
extern "C" int affine_coupling_backward_cpu(int dtype, const void* dy, const void* dlogdet, const void* kept,
                                            const void* s, const void* t, void* dx, void* ds, int64_t N, int64_t D,
                                            int threads) {
    return gradient<false>(dtype, dy, dlogdet, kept, s, t, dx, ds, N, D, threads);
}
extern "C" int affine_coupling_inverse_backward_cpu(int dtype, const void* dx, const void* dlogdet, const void* x,
                                                    const void* s, void* dy, void* ds, int64_t N, int64_t D,
                                                    int threads) {
    return gradient<true>(dtype, dx, dlogdet, x, s, nullptr, dy, ds, N, D, threads);
}
#endif
