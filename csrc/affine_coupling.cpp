// y = x e^s + t and logdet_n = sum_d s_nd, its inverse, and the gradients of both, on a CPU.
// Room: kernels/affine_coupling.py
//
// A task is some short rows, or a part of a long one. Each number is written by one task, and D decides in which order
// a row is added: results do not depend on the number of threads, and logdet not on the instruction set either. Inputs
// have strides: s and t may be the halves of a network's output, or every other column of it, and nobody copies them.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

template <class T> struct Strided {    // number d of row n is p[n row + d step]
    const T* p;
    int64_t row, step;
    Strided(const void* p, const int64_t strides[2]) : p((const T*)p), row(strides[0]), step(strides[1]) {}
};

template <class T> struct Coupling {    // of the inverse, x is y and y is x
    Strided<T> x, s, t;                 // (N, D)
    T *y, *logdet;                      // (N, D), (N)
    double* part;                       // (N, parts of a row, 2): their sums, where a row has several parts
    int64_t N, D;
};

template <class T> struct Gradient {    // of the inverse, dy is dx and dx is dy
    Strided<T> dy, kept, s, t;          // (N, D); kept is x where t.p is null, else y
    const T* dlogdet;                   // (N)
    T *dx, *ds, *dt;                    // (N, D); dt of the inverse alone: else it is dy
    int64_t N, D;
};

}    // namespace

#define EACH_SET "../affine_coupling.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the arithmetic, read by csrc/cpu/each_set.h for each instruction set ----------------------------
#include "cpu/row_sums.h"

template <class T> struct Rows {    // number d of row n is p[n row + d]; those of a task begin at 0
    const T* p;
    int64_t row;
};

// `many` numbers, one every `step`, side by side in `to`
template <class T> static const T* closed_up(const T* from, int64_t many, int64_t step, T* to) {
    if (step == 2)
        for (int64_t i = 0; i < many; i++) to[i] = from[2 * i];    // in vectors
    else
        for (int64_t i = 0; i < many; i++) to[i] = from[i * step];
    return to;
}

// Columns d0 ... d1-1 of rows n0 ... n1-1: where they lie, or in `copy` if numbers do not lie side by side there. Short
// rows lie side by side too.
template <class T>
static Rows<T> rows_of(const Strided<T>& a, int64_t n0, int64_t n1, int64_t d0, int64_t d1, T* copy) {
    if (!a.p) return {nullptr, 0};
    const int64_t D = d1 - d0;
    const T* from = a.p + n0 * a.row + d0 * a.step;
    if (a.step == 1 && (a.row == D || D >= SUMS)) return {from, a.row};
    if (a.row == D * a.step) return {closed_up(from, (n1 - n0) * D, a.step, copy), D};    // as one long row
    if (D < SUMS)
        for (int64_t d = 0; d < D; d++)
            for (int64_t n = 0; n < n1 - n0; n++) copy[n * D + d] = from[n * a.row + d * a.step];
    else
        for (int64_t n = 0; n < n1 - n0; n++) closed_up(from + n * a.row, D, a.step, copy + n * D);
    return {copy, D};
}

template <bool inverse, class S> static inline double logdet_of(const S& sum) {
    return inverse ? -(sum.high + sum.low) : sum.high + sum.low;
}

// y of `count` numbers; returns their s
template <bool inverse, class T>
static inline vec<T> couple(const T* of_x, const T* of_s, const T* of_t, T* y, int64_t count) {
    const vec<T> x = load(of_x, count), s = load(of_s, count), t = load(of_t, count);
    store(y, inverse ? (x - t) * whole_exponential<T>(-s) : fused(x, whole_exponential<T>(s), t), count);
    return s;
}

// logdet of rows of fewer than SUMS numbers
template <bool inverse, class T> static void short_sums(const T* s, T* logdet, int64_t N, int64_t D) {
    if (D == 2) {    // a flow of the plane; a sum of two is rounded once in T too
        for (int64_t n = 0; n < N; n++) logdet[n] = inverse ? -(s[2 * n] + s[2 * n + 1]) : s[2 * n] + s[2 * n + 1];
        return;
    }
    for (int64_t n = 0; n < N; n++) {
        RowSum<T> sum = {0, 0};
        for (int64_t d = 0; d < D; d++) sum.add(s[n * D + d]);
        logdet[n] = T(logdet_of<inverse>(sum));
    }
}

// Columns d0 ... d1-1 of rows n0 ... n1-1
template <bool inverse, class T>
static void couple_part(const Coupling<T>& p, int64_t n0, int64_t n1, int64_t d0, int64_t d1) {
    T copy[3][PART], *y = p.y + n0 * p.D + d0;
    const Rows<T> x = rows_of(p.x, n0, n1, d0, d1, copy[0]), s = rows_of(p.s, n0, n1, d0, d1, copy[1]),
                  t = rows_of(p.t, n0, n1, d0, d1, copy[2]);
    if (p.D < SUMS) {    // a vector takes what it holds, of whatever row
        each_vector<T>((n1 - n0) * p.D, [&](int64_t i, int64_t count) {
            couple<inverse>(x.p + i, s.p + i, t.p + i, y + i, count);
        });
        return short_sums<inverse>(s.p, p.logdet + n0, n1 - n0, p.D);
    }
    for (int64_t n = 0; n < n1 - n0; n++) {
        RowSums<T> sums;
        each_of_sums<T>(0, d1 - d0, [&](int j, int64_t d, int64_t count) {
            sums.add(j, couple<inverse>(x.p + n * x.row + d, s.p + n * s.row + d, t.p + n * t.row + d, y + n * p.D + d,
                                        count));
        });
        const RowSum<T> sum = sums.total_of_all();
        if (p.D <= PART) {
            p.logdet[n0 + n] = T(logdet_of<inverse>(sum));
        } else {
            double* part = p.part + ((n0 + n) * ceil_div(p.D, PART) + d0 / PART) * 2;
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
    T copy[4][PART];
    const Rows<T> of_dy = rows_of(p.dy, n0, n1, d0, d1, copy[0]), of_kept = rows_of(p.kept, n0, n1, d0, d1, copy[1]),
                  of_s = rows_of(p.s, n0, n1, d0, d1, copy[2]), of_t = rows_of(p.t, n0, n1, d0, d1, copy[3]);
    T *dx = p.dx + n0 * p.D + d0, *ds = p.ds + n0 * p.D + d0, *dt = inverse ? p.dt + n0 * p.D + d0 : nullptr;
    auto pull = [&](int64_t n, int64_t d, int64_t count, vec<T> dlogdet) {    // of `count` numbers of row n from d on
        const vec<T> dy = load(of_dy.p + n * of_dy.row + d, count), s = load(of_s.p + n * of_s.row + d, count),
                     kept = load(of_kept.p + n * of_kept.row + d, count);
        const vec<T> es = whole_exponential<T>(inverse ? -s : s);
        store(dx + n * p.D + d, dy * es, count);
        if (inverse) {    // was: x = (y - t) e^-s
            store(ds + n * p.D + d, fused_minus(dy, kept, -dlogdet), count);
            store(dt + n * p.D + d, -(dy * es), count);
        } else {    // was: y = x e^s + t
            const vec<T> xes = p.t.p ? kept - load(of_t.p + n * of_t.row + d, count) : kept * es;
            store(ds + n * p.D + d, fused(dy, xes, dlogdet), count);
        }
    };
    if (p.D < SUMS) {    // short rows, as above
        T of_row[PART];
        for (int64_t n = n0, i = 0; n < n1; n++)
            for (int64_t d = 0; d < p.D; d++) of_row[i++] = p.dlogdet[n];
        return each_vector<T>((n1 - n0) * p.D, [&](int64_t i, int64_t count) {
            pull(0, i, count, load(of_row + i, count));
        });
    }
    for (int64_t n = 0; n < n1 - n0; n++)
        each_vector<T>(d1 - d0, [&](int64_t d, int64_t count) { pull(n, d, count, p.dlogdet[n0 + n] + vec<T>{}); });
}

#else    // ---- the tasks, and the C functions that Python calls -----------------------------------------------------
namespace {

template <bool inverse>
int forward(int dtype, const void* x, const void* s, const void* t, const int64_t* strides, void* y, void* logdet,
            void* part, int64_t N, int64_t D, int threads) {
    if (N < 0 || D < 0 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const Strided<T> of_x(x, strides), of_s(s, strides + 2), of_t(t, strides + 4);
        const Coupling<T> p = {of_x, of_s, of_t, (T*)y, (T*)logdet, (double*)part, N, D};
        const int set = instruction_set();
        const auto couple = OF_SET(set, couple_part<inverse, T>);
        const auto add_parts = OF_SET(set, add_parts<inverse, T>);
        each_part(N, D, threads, 0.2, p.y,
                  [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { couple(p, n0, n1, d0, d1); });
        for (int64_t n = 0; n < N && (D == 0 || D > PART); n++) add_parts(p, n);
    });
}

template <bool inverse>
int gradient(int dtype, const void* dy, const void* dlogdet, const void* kept, const void* s, const void* t,
             const int64_t* strides, void* dx, void* ds, void* dt, int64_t N, int64_t D, int threads) {
    if (N < 0 || D < 0 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const Strided<T> of_dy(dy, strides), of_kept(kept, strides + 2), of_s(s, strides + 4), of_t(t, strides + 6);
        const Gradient<T> p = {of_dy, of_kept, of_s, of_t, (const T*)dlogdet, (T*)dx, (T*)ds, (T*)dt, N, D};
        const auto backward = BEST(backward<inverse, T>);
        each_part(N, D, threads, 0.2,
                  [&](int64_t n0, int64_t n1, int64_t d0, int64_t d1) { backward(p, n0, n1, d0, d1); });
    });
}

}    // namespace

// dtype: 0 float32, 3 float64. strides: from row to row and from number to number, of each (N, D) before them; of a
// gradient four pairs, the last that of t. part has room for 2 ceil(D / PART) doubles a row; null if D <= PART. All
// return 0, or 1 for a bad argument.
extern "C" int affine_coupling_cpu(int dtype, const void* x, const void* s, const void* t, const int64_t* strides,
                                   void* y, void* logdet, void* part, int64_t N, int64_t D, int threads) {
    return forward<false>(dtype, x, s, t, strides, y, logdet, part, N, D, threads);
}
extern "C" int affine_coupling_inverse_cpu(int dtype, const void* y, const void* s, const void* t,
                                           const int64_t* strides, void* x, void* logdet, void* part, int64_t N,
                                           int64_t D, int threads) {
    return forward<true>(dtype, y, s, t, strides, x, logdet, part, N, D, threads);
}
extern "C" int affine_coupling_backward_cpu(int dtype, const void* dy, const void* dlogdet, const void* kept,
                                            const void* s, const void* t, const int64_t* strides, void* dx, void* ds,
                                            int64_t N, int64_t D, int threads) {
    return gradient<false>(dtype, dy, dlogdet, kept, s, t, strides, dx, ds, nullptr, N, D, threads);
}
extern "C" int affine_coupling_inverse_backward_cpu(int dtype, const void* dx, const void* dlogdet, const void* x,
                                                    const void* s, const int64_t* strides, void* dy, void* ds, void* dt,
                                                    int64_t N, int64_t D, int threads) {
    return gradient<true>(dtype, dx, dlogdet, x, s, nullptr, strides, dy, ds, dt, N, D, threads);
}
#endif
