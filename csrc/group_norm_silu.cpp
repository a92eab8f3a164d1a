// silu of a group norm with a scale and a shift, and its gradient, on a CPU.   Room: kernels/group_norm_silu.py
//
// A task is some groups; each lies in one piece, (C / G) P numbers, and stays in the cache from pass to pass. In the
// gradient dx holds du between two passes. Every sum has one order: results do not depend on the number of threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <cmath>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

constexpr int64_t BLOCK = 1024;     // numbers whose sum is taken in T; the sums of blocks are added in double
constexpr int64_t CHANNELS = 64;    // of a task of the sums over n

template <class T> struct Problem {
    const T *x, *gamma, *beta, *scale, *shift;    // (N, C, P), (C) twice, (N, C) twice or null
    int64_t N, C, P, G;
};

template <class T> struct Forward : Problem<T> {
    T *y, *stats;    // (N, C, P), (N, G, 3): the centre, the mean of x - centre, 1 / deviation
    double eps;
};

template <class T> struct Gradient : Problem<T> {
    const T *dy, *stats;
    T *dx, *dgamma, *dbeta, *A, *B;    // A, B (N, C): sum_p du z, sum_p du
};

// The channel's factor of z and its offset: u = w z + b
template <class T> inline void affine(const Problem<T>& p, int64_t n, int64_t c, T& w, T& b) {
    T s = 1 + (p.scale ? p.scale[n * p.C + c] : 0);
    w = s * p.gamma[c], b = s * p.beta[c] + (p.shift ? p.shift[n * p.C + c] : 0);
}

}    // namespace

#define EACH_SET "../group_norm_silu.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set

// sigma(u), exactly 0 or 1 far out: for u = -inf, u sigma(u) is NaN, as in PyTorch
template <class T> static inline vec<T> gate(vec<T> u) {
    const vec<T> zero = {}, one = T(1) + zero, cut = CUT<T> + zero;
    const vec<T> below_one = u > cut ? one : sigma<T>(u);
    return u < -cut ? zero : below_one;
}

// The first `count` lanes, then 0
template <class T> static inline vec<T> kept(vec<T> v, int64_t count) {
    if (count == LANES<T>) return v;
    T lane[LANES<T>];
    store(lane, v);
    return load(lane, count);
}

// Two sums over R numbers: f(h, count, a, b) adds the vector at h to a and b
template <class T, class F> static inline void two_sums(int64_t R, double* a, double* b, F f) {
    constexpr int L = LANES<T>, ROWS = 4;    // so many sums at once, as an addition takes its time
    *a = *b = 0;
    for (int64_t h = 0, end; h < R; h = end) {
        end = std::min(R, h + BLOCK);
        vec<T> sum_a[ROWS] = {}, sum_b[ROWS] = {};
        for (; h + ROWS * L <= end; h += ROWS * L)
            for (int i = 0; i < ROWS; i++) f(h + i * L, int64_t(L), sum_a[i], sum_b[i]);
        for (; h < end; h += L) f(h, std::min<int64_t>(L, end - h), sum_a[0], sum_b[0]);
        *a += total<T>((sum_a[0] + sum_a[1]) + (sum_a[2] + sum_a[3]));
        *b += total<T>((sum_b[0] + sum_b[1]) + (sum_b[2] + sum_b[3]));
    }
}

// Two passes over the R numbers of a group. The centre m is the mean, but for its rounding, which the second pass finds
template <class T> static inline void statistics(const T* x, int64_t R, double eps, T* stats) {
    double sum, rest, square, none;
    two_sums<T>(R, &sum, &none, [&](int64_t h, int64_t count, vec<T>& a, vec<T>&) { a += load(x + h, count); });
    const T m = T(sum / R);
    two_sums<T>(R, &rest, &square, [&](int64_t h, int64_t count, vec<T>& a, vec<T>& b) {
        vec<T> d = kept<T>(load(x + h, count) - m, count);
        a += d, b += d * d;
    });
    rest /= R;
    double variance = square / R - rest * rest;
    stats[0] = m, stats[1] = T(rest), stats[2] = T(1 / std::sqrt((variance < 0 ? 0 : variance) + eps));
}

// Group g of image n, ng = n G + g
template <class T> static void forward(const Forward<T>& p, int64_t ng) {
    const int64_t n = ng / p.G, M = p.C / p.G, c0 = ng % p.G * M;
    T* stats = p.stats + ng * 3;
    statistics(p.x + ng * M * p.P, M * p.P, p.eps, stats);
    const vec<T> zero = {}, m = stats[0] + zero;
    for (int64_t c = c0; c < c0 + M; c++) {
        T w, b;
        affine(p, n, c, w, b);
        const vec<T> slope = w * stats[2] + zero, offset = b - stats[1] * (w * stats[2]) + zero;
        const T* x = p.x + (n * p.C + c) * p.P;
        T* y = p.y + (n * p.C + c) * p.P;
        each_vector<T>(p.P, [&](int64_t h, int64_t count) {
            vec<T> u = fused(load(x + h, count) - m, slope, offset);
            store(y + h, u * gate<T>(u), count);
        });
    }
}

template <class T> static void backward(const Gradient<T>& p, int64_t ng) {
    const int64_t n = ng / p.G, M = p.C / p.G, c0 = ng % p.G * M, first = (n * p.C + c0) * p.P;
    const T* stats = p.stats + ng * 3;
    const vec<T> zero = {}, m = stats[0] + zero, r = stats[2] + zero, z0 = -stats[1] * stats[2] + zero;
    auto z_at = [&](int64_t at, int64_t count) { return fused(load(p.x + at, count) - m, r, z0); };
    double c1 = 0, c2 = 0;
    for (int64_t c = c0, at = first; c < c0 + M; c++, at += p.P) {
        T w, b;
        double A, B;
        affine(p, n, c, w, b);
        two_sums<T>(p.P, &A, &B, [&](int64_t h, int64_t count, vec<T>& a, vec<T>& sum) {
            vec<T> z = z_at(at + h, count), u = fused(w + zero, z, b + zero), s = gate<T>(u);
            vec<T> du = load(p.dy + at + h, count) * (s * fused(u, T(1) - s, T(1) + zero));    // y was u sigma(u)
            store(p.dx + at + h, du, count);
            a += kept<T>(du * z, count), sum += kept<T>(du, count);
        });
        p.A[n * p.C + c] = T(A), p.B[n * p.C + c] = T(B);
        c1 += w * B, c2 += w * A;
    }
    const vec<T> mean = T(c1 / (M * p.P)) + zero, slope = T(c2 / (M * p.P)) + zero;
    for (int64_t c = c0, at = first; c < c0 + M; c++, at += p.P) {
        T w, b;
        affine(p, n, c, w, b);
        each_vector<T>(p.P, [&](int64_t h, int64_t count) {
            vec<T> dz = w * load(p.dx + at + h, count);
            store(p.dx + at + h, r * ((dz - mean) - z_at(at + h, count) * slope), count);
        });
    }
}

#else
// ---- tasks and the entry points -------------------------------------------------------------------------------------
namespace {

template <class T, class F> void each_group(const Problem<T>& p, int threads, F group) {
    int64_t groups = p.N * p.G, R = p.C / p.G * p.P, of_a_task = rows_of_a_task(R);
    threads = worth_waking(threads, p.N * p.C * (p.P + 32), 0.3);    // a channel takes as long as 32 numbers
    parallel(ceil_div(groups, of_a_task), threads, [&](int64_t task, int) {
        for (int64_t ng = task * of_a_task; ng < std::min(groups, (task + 1) * of_a_task); ng++) group(ng);
    });
}

// dgamma = sum_n (1 + s) A, dbeta = sum_n (1 + s) B; and A, which becomes ds = gamma A + beta B, while B is the shift's
template <class T> void over_rows(const Gradient<T>& p, int64_t c0, int64_t c1) {
    double dgamma[CHANNELS] = {}, dbeta[CHANNELS] = {};
    for (int64_t n = 0; n < p.N; n++) {
        T *A = p.A + n * p.C, *B = p.B + n * p.C;
        const T* scale = p.scale ? p.scale + n * p.C : nullptr;
        for (int64_t c = c0; c < c1; c++) {
            double s = 1 + double(scale ? scale[c] : 0);
            dgamma[c - c0] += s * A[c], dbeta[c - c0] += s * B[c];
            A[c] = p.gamma[c] * A[c] + p.beta[c] * B[c];
        }
    }
    for (int64_t c = c0; c < c1; c++) p.dgamma[c] = T(dgamma[c - c0]), p.dbeta[c] = T(dbeta[c - c0]);
}

bool possible(int64_t N, int64_t C, int64_t P, int64_t G, int threads) {
    return N >= 0 && C >= 1 && P >= 0 && G >= 1 && C % G == 0 && threads >= 1;
}

template <class T> Problem<T> problem(const void* x, const void* gamma, const void* beta, const void* scale,
                                      const void* shift, int64_t N, int64_t C, int64_t P, int64_t G) {
    return {(const T*)x, (const T*)gamma, (const T*)beta, (const T*)scale, (const T*)shift, N, C, P, G};
}

}    // namespace

// dtype: 0 float32, 3 float64. scale and shift may be null. Both functions return 0, or 1 for a bad argument.
extern "C" int group_norm_silu_cpu(int dtype, const void* x, const void* gamma, const void* beta, const void* scale,
                                   const void* shift, void* y, void* stats, double eps, int64_t N, int64_t C,
                                   int64_t P, int64_t G, int threads) {
    if (!possible(N, C, P, G, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Forward<T> p = {problem<T>(x, gamma, beta, scale, shift, N, C, P, G), (T*)y, (T*)stats, eps};
        auto group = BEST(forward<T>);
        each_group(p, threads, [&](int64_t ng) { group(p, ng); });
    });
}

extern "C" int group_norm_silu_backward_cpu(int dtype, const void* dy, const void* x, const void* gamma,
                                            const void* beta, const void* scale, const void* shift, const void* stats,
                                            void* dx, void* dgamma, void* dbeta, void* dscale, void* dshift, int64_t N,
                                            int64_t C, int64_t P, int64_t G, int threads) {
    if (!possible(N, C, P, G, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Gradient<T> p = {problem<T>(x, gamma, beta, scale, shift, N, C, P, G), (const T*)dy, (const T*)stats, (T*)dx,
                         (T*)dgamma, (T*)dbeta, (T*)dscale, (T*)dshift};
        auto group = BEST(backward<T>);
        each_group(p, threads, [&](int64_t ng) { group(p, ng); });
        parallel(ceil_div(C, CHANNELS), worth_waking(threads, N * C, 2),
                 [&](int64_t task, int) { over_rows(p, task * CHANNELS, std::min(C, (task + 1) * CHANNELS)); });
    });
}
#endif
