// A monotonic rational-quadratic spline of each number, its inverse and their gradients, on a CPU.
// Room: kernels/spline_coupling.py
//
// The lanes of a vector are elements of x. Their parameters, which lie one element after another in w, are turned into
// columns: parameter j of all lanes is one vector. A task is some rows; each element is computed by itself, and the
// log-slopes of a row are added in double in their order, so results do not depend on the number of threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <cmath>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

constexpr int MOST_BINS = 64;

template <class T> struct Problem {
    const T *x, *w;             // (N, D), (N, D, 3K - 1); x is y where the inverse is wanted
    T *y, *logdet;              // (N, D), (N): of a forward pass
    const T *dy, *dlogdet;      // (N, D), (N)
    T *dx, *dw;                 // (N, D), (N, D, 3K - 1): of a gradient
    double B, least, shift;
    int64_t N, D, K;
};

}    // namespace

#define EACH_SET "../spline_coupling.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the arithmetic, read by csrc/cpu/each_set.h for each instruction set ----------------------------

#include "cpu/logarithm.h"

template <class V> static inline V log_1_plus(V v) { return two_atanh(v / (2 + v)); }    // of 0 <= v <= 1
template <class V> static inline V e_to(V v) { return exponential<number_of<V>>(v); }

#include "spline_coupling.h"

// The parameters of LANES elements, parameter j of all in `at[j]`
template <class T> struct Columns {
    vec<T> at[3 * MOST_BINS - 1];

    void read(const T* w, int64_t J, int64_t count) {
        T* lanes = (T*)at;
        if (count < LANES<T>) std::memset(lanes, 0, J * BYTES);
        for (int64_t l = 0; l < count; l++)
            for (int64_t j = 0; j < J; j++) lanes[j * LANES<T> + l] = w[l * J + j];
    }
    void write(T* w, int64_t J, int64_t count) const {
        const T* lanes = (const T*)at;
        for (int64_t l = 0; l < count; l++)
            for (int64_t j = 0; j < J; j++) w[l * J + j] = lanes[j * LANES<T> + l];
    }
    void softmax(int64_t first, int64_t K) {    // of the parameters first ... first + K - 1, in place
        vec<T> top = at[first], sum = {};
        for (int64_t j = first; j < first + K; j++) top = most(top, at[j]);
        for (int64_t j = first; j < first + K; j++) at[j] = e_to(at[j] - top), sum += at[j];
        sum = T(1) / sum;
        for (int64_t j = first; j < first + K; j++) at[j] *= sum;
    }
};

template <bool inverse, class T> static inline Spot<vec<T>> find_all(Columns<T>& w, vec<T> v, const Spline<T>& c) {
    w.softmax(0, c.K), w.softmax(c.K, c.K);
    return find<inverse>(v, c, [&](int j) { return w.at[j]; }, [&](int j) { return w.at[2 * c.K + j]; });
}
template <class T> static inline Spline<T> spline(const Problem<T>& p) {
    return {T(p.B), T(p.least), T(p.shift), int(p.K)};
}

template <bool inverse, class T> static void forward(const Problem<T>& p, int64_t n0, int64_t n1) {
    const Spline<T> c = spline(p);
    const int64_t J = 3 * p.K - 1, first = n0 * p.D;
    Columns<T> w;
    double sum = 0;
    int64_t n = n0, d = 0;    // the row whose sum this is, and how many of its numbers it has
    for (; n < n1 && p.D == 0; n++) p.logdet[n] = 0;
    each_vector<T>(n1 * p.D - first, [&](int64_t i, int64_t count) {
        const vec<T> v = load(p.x + first + i, count);
        w.read(p.w + (first + i) * J, J, count);
        const Spot<vec<T>> at = find_all<inverse>(w, v, c);
        store(p.y + first + i, pick<vec<T>>(at.outside, v, inverse ? x_of(at) : y_of(at)), count);
        const vec<T> slope = log_slope(at);
        for (int64_t l = 0; l < count; l++) {
            sum += slope[l];
            if (++d == p.D) p.logdet[n++] = T(inverse ? -sum : sum), d = 0, sum = 0;
        }
    });
}

template <bool inverse, class T> static void backward(const Problem<T>& p, int64_t n0, int64_t n1) {
    const Spline<T> c = spline(p);
    const int64_t J = 3 * p.K - 1, first = n0 * p.D;
    Columns<T> w;
    int64_t n = n0, d = 0;
    each_vector<T>(n1 * p.D - first, [&](int64_t i, int64_t count) {
        w.read(p.w + (first + i) * J, J, count);
        vec<T> e = {};
        for (int64_t l = 0; l < count; l++) {
            e[l] = p.dlogdet[n];
            if (++d == p.D) n++, d = 0;
        }
        const Spot<vec<T>> at = find_all<inverse>(w, load(p.x + first + i, count), c);
        const Pull<vec<T>> g = pull<inverse>(load(p.dy + first + i, count), e, at, c);
        store(p.dx + first + i, g.input, count);
        for (int axis : {0, 1})
            for (int j = 0; j < c.K; j++) w.at[axis * c.K + j] = dshare(j, w.at[axis * c.K + j], axis, g, at, c);
        for (int j = 0; j + 1 < c.K; j++) w.at[2 * c.K + j] = draw<vec<T>, T>(j, g, at);
        w.write(p.dw + (first + i) * J, J, count);
    });
}

#else    // ---- the tasks, and the C functions that Python calls -----------------------------------------------------
namespace {

template <class T> using Rows = void (*)(const Problem<T>&, int64_t, int64_t);

template <class T> void each_row(const Problem<T>& p, int threads, Rows<T> rows) {
    const int64_t numbers = p.D * (3 * p.K - 1), of_a_task = rows_of_a_task(numbers);
    parallel(ceil_div(p.N, of_a_task), worth_waking(threads, p.N * numbers, 0.7), [&](int64_t task, int) {
        rows(p, task * of_a_task, std::min(p.N, (task + 1) * of_a_task));
    });
}

bool possible(int64_t N, int64_t D, int64_t K, int threads) {
    return N >= 0 && D >= 0 && K >= 2 && K <= MOST_BINS && threads >= 1;
}

}    // namespace

// dtype: 0 float32, 3 float64. All functions return 0, or 1 for a bad argument.
extern "C" int spline_coupling_cpu(int dtype, bool inverse, const void* x, const void* w, void* y, void* logdet,
                                   double B, double least, double shift, int64_t N, int64_t D, int64_t K,
                                   int threads) {
    if (!possible(N, D, K, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Problem<T> p = {(const T*)x, (const T*)w, (T*)y, (T*)logdet, nullptr, nullptr, nullptr, nullptr,
                        B, least, shift, N, D, K};
        each_row<T>(p, threads, inverse ? BEST(forward<true, T>) : BEST(forward<false, T>));
    });
}

extern "C" int spline_coupling_backward_cpu(int dtype, bool inverse, const void* dy, const void* dlogdet,
                                            const void* x, const void* w, void* dx, void* dw, double B, double least,
                                            double shift, int64_t N, int64_t D, int64_t K, int threads) {
    if (!possible(N, D, K, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Problem<T> p = {(const T*)x, (const T*)w, nullptr, nullptr, (const T*)dy, (const T*)dlogdet, (T*)dx, (T*)dw,
                        B, least, shift, N, D, K};
        each_row<T>(p, threads, inverse ? BEST(backward<true, T>) : BEST(backward<false, T>));
    });
}
#endif
