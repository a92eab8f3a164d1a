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

constexpr int SUMS = 16;    // partial sums of a part of a row: number d belongs to sum d % SUMS

}    // namespace

#define EACH_SET "../affine_coupling.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the arithmetic, read by csrc/cpu/each_set.h for each instruction set ----------------------------

// A sum in doubles, V one or a vector of them. `compensated` keeps beside it the sum of its rounding errors (Knuth's
// two-sum: s + e = a + b exactly, unless it overflows)
template <bool compensated, class V> struct Sum {
    V high, low;
    void add(const V& b) {
        const V a = high, s = a + b;
        if constexpr (compensated) {
            const V bb = s - a, e = (a - (s - bb)) + (b - bb);
            low += e == e ? e : V{};    // e is NaN after an infinity: the result is then high alone
        }
        high = s;
    }
    void add(const Sum& other) { add(other.high), low += other.low; }
};
template <class T> constexpr bool COMPENSATED = sizeof(T) == 8;
template <class T> using RowSum = Sum<COMPENSATED<T>, double>;

// The sum of a row: SUMS partial sums, which a tree adds
template <class T> struct RowSums {
    static constexpr int L = LANES<double>;
    Sum<COMPENSATED<T>, vec<double>> sums[SUMS / L] = {};

    void add(int j, vec<T> v) {    // vector j of SUMS numbers
        if constexpr (sizeof(T) == 8) sums[j].add(v);
        else sums[2 * j].add(wide<0>(v)), sums[2 * j + 1].add(wide<1>(v));
    }
    RowSum<T> total_of_all() {
#pragma GCC unroll 4
        for (int half = SUMS / L / 2; half; half /= 2)
            for (int i = 0; i < half; i++) sums[i].add(sums[i + half]);
        if (!COMPENSATED<T>) return {total<double>(sums[0].high), 0};
        RowSum<T> lane[L];
        for (int l = 0; l < L; l++) lane[l] = {sums[0].high[l], sums[0].low[l]};
        for (int half = L / 2; half; half /= 2)
            for (int l = 0; l < half; l++) lane[l].add(lane[l + half]);
        return lane[0];
    }
};

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
        auto block = [&](int64_t d, int64_t count) {
#pragma GCC unroll 8
            for (int j = 0; j < SUMS / LANES<T>; j++) {
                const int64_t first = j * LANES<T>, left = count - first;
                if (left > 0) sums.add(j, couple<inverse>(p, n * p.D + d + first, left < LANES<T> ? left : LANES<T>));
            }
        };
        int64_t d = d0;
        for (; d + SUMS <= d1; d += SUMS) block(d, SUMS);
        if (d < d1) block(d, d1 - d);
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
        each_part(N, D, threads,
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
        each_part(N, D, threads,
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
