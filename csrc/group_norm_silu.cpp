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
    int64_t N, C, P, G, M;                        // M = C / G channels a group
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

// sigma(u), exactly 0 far below (and 1 far above): for u = -inf, u sigma(u) is NaN, as in PyTorch
template <class T> static inline vec<T> gate(vec<T> u) {
    const vec<T> zero = {}, cut = CUT<T> + zero;
    return u < -cut ? zero : sigma<T>(u);
}

// The first `count` lanes, then 0
template <class T> static inline vec<T> kept(vec<T> v, int64_t count) {
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    vec<Int> lane;
    for (int l = 0; l < LANES<T>; l++) lane[l] = l;
    return lane < Int(count) ? v : vec<T>{};
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

// y of group g of image n, ng = n G + g
template <class T> static inline void normalise(const Forward<T>& p, int64_t ng) {
    const int64_t n = ng / p.G, c0 = ng % p.G * p.M;
    const T* stats = p.stats + ng * 3;
    const vec<T> zero = {}, m = stats[0] + zero;
    for (int64_t c = c0; c < c0 + p.M; c++) {
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

// Groups first ... end-1, pass by pass: each step of a group's statistics waits for the step before it, and meanwhile
// the processor computes those of the next group
template <class T> static void forward(const Forward<T>& p, int64_t first, int64_t end) {
    const int64_t R = p.M * p.P;
    for (int64_t ng = first; ng < end; ng++) statistics(p.x + ng * R, R, p.eps, p.stats + ng * 3);
    for (int64_t ng = first; ng < end; ng++) normalise(p, ng);
}

// z of a group, from its statistics
template <class T> struct Normal {
    vec<T> m, r, z0;
    Normal(const T* stats) : m(stats[0] + vec<T>{}), r(stats[2] + vec<T>{}), z0(-stats[1] * stats[2] + vec<T>{}) {}
    vec<T> z(vec<T> x) const { return fused(x - m, r, z0); }
};

// du of channel c of image n, H numbers of it from number h0 on, and the sums of du z and du, lane by lane
template <class T>
static inline void through_silu(const Gradient<T>& p, const Normal<T>& group, int64_t n, int64_t c, int64_t h0,
                                int64_t H, vec<T>& A, vec<T>& B) {
    const vec<T> zero = {}, one = T(1) + zero;
    const int64_t at = (n * p.C + c) * p.P + h0;
    const T *x = p.x + at, *dy = p.dy + at;
    T w, b, *dx = p.dx + at;
    affine(p, n, c, w, b);
    vec<T> sum_A = zero, sum_B = zero;
    each_vector<T>(H, [&](int64_t h, int64_t count) {
        vec<T> z = group.z(load(x + h, count)), u = fused(w + zero, z, b + zero), s = gate<T>(u);
        vec<T> du = load(dy + h, count) * (s * fused(u, one - s, one));    // y was u sigma(u)
        store(dx + h, du, count);
        sum_A += kept<T>(du * z, count), sum_B += kept<T>(du, count);
    });
    A = sum_A, B = sum_B;
}

// du, A and B of group ng. The lanes of several channels are added at once, of as many as have their A and B in one
// vector: for few numbers a channel that takes longer than all else
template <class T> static inline void sums_of(const Gradient<T>& p, int64_t ng) {
    constexpr int MANY = LANES<T> / 2;
    const int64_t n = ng / p.G, c0 = ng % p.G * p.M, end = c0 + p.M;
    const Normal<T> group(p.stats + ng * 3);
    for (int64_t c = c0; c < end; c += MANY) {
        const int many = int(std::min<int64_t>(MANY, end - c));
        double sums[2 * MANY] = {};    // A of each channel, then B
        for (int64_t h = 0; h < p.P; h += BLOCK) {
            vec<T> lanes[2 * MANY];
            for (int i = 0; i < many; i++)
                through_silu(p, group, n, c + i, h, std::min(BLOCK, p.P - h), lanes[i], lanes[MANY + i]);
            for (int i = many; i < MANY; i++) lanes[i] = lanes[MANY + i] = vec<T>{};
            T of_block[2 * MANY];
            store(of_block, totals<T>(lanes));
            for (int i = 0; i < 2 * MANY; i++) sums[i] += of_block[i];
        }
        T *A = p.A + n * p.C + c, *B = p.B + n * p.C + c;
        for (int i = 0; i < many; i++) A[i] = T(sums[i]), B[i] = T(sums[MANY + i]);
    }
}

// dx of group ng
template <class T> static inline void dx_of(const Gradient<T>& p, int64_t ng) {
    const int64_t n = ng / p.G, c0 = ng % p.G * p.M, end = c0 + p.M;
    const Normal<T> group(p.stats + ng * 3);
    const vec<T> zero = {};
    double c1 = 0, c2 = 0;
    T w, b;
    for (int64_t c = c0; c < end; c++) {
        affine(p, n, c, w, b);
        c1 += w * double(p.B[n * p.C + c]), c2 += w * double(p.A[n * p.C + c]);
    }
    const vec<T> mean = T(c1 / (p.M * p.P)) + zero, slope = T(c2 / (p.M * p.P)) + zero;
    for (int64_t c = c0; c < end; c++) {
        affine(p, n, c, w, b);
        const int64_t at = (n * p.C + c) * p.P;
        const T* x = p.x + at;
        T* dx = p.dx + at;
        each_vector<T>(p.P, [&](int64_t h, int64_t count) {
            vec<T> z = group.z(load(x + h, count)), dz = w * load(dx + h, count);
            store(dx + h, group.r * fused_minus(z, slope, dz - mean), count);
        });
    }
}

// Groups first ... end-1, pass by pass as well: the means c1, c2 of a group wait for all of its sums
template <class T> static void backward(const Gradient<T>& p, int64_t first, int64_t end) {
    for (int64_t ng = first; ng < end; ng++) sums_of(p, ng);
    for (int64_t ng = first; ng < end; ng++) dx_of(p, ng);
}

// dgamma = sum_n (1 + s) A, dbeta = sum_n (1 + s) B; and A, which becomes ds = gamma A + beta B, while B is the shift's
template <class T> static void over_rows(const Gradient<T>& p, int64_t c0, int64_t c1) {
    double dgamma[CHANNELS] = {}, dbeta[CHANNELS] = {};
    const T *gamma = p.gamma, *beta = p.beta;
    for (int64_t n = 0; n < p.N; n++) {
        T *A = p.A + n * p.C, *B = p.B + n * p.C;
        const T* scale = p.scale ? p.scale + n * p.C : nullptr;
        for (int64_t c = c0; c < c1; c++) {
            double s = 1 + double(scale ? scale[c] : 0);
            dgamma[c - c0] += s * A[c], dbeta[c - c0] += s * B[c];
            A[c] = gamma[c] * A[c] + beta[c] * B[c];
        }
    }
    for (int64_t c = c0; c < c1; c++) p.dgamma[c] = T(dgamma[c - c0]), p.dbeta[c] = T(dbeta[c - c0]);
}

#else
// ---- tasks and the entry points -------------------------------------------------------------------------------------
namespace {

template <class T, class F> void each_task(const Problem<T>& p, int threads, F work) {
    int64_t groups = p.N * p.G, of_a_task = rows_of_a_task(p.M * p.P);
    threads = worth_waking(threads, p.N * p.C * (p.P + 32), 0.3);    // a channel takes as long as 32 numbers
    parallel(ceil_div(groups, of_a_task), threads, [&](int64_t task, int) {
        work(task * of_a_task, std::min(groups, (task + 1) * of_a_task));
    });
}

bool possible(int64_t N, int64_t C, int64_t P, int64_t G, int threads) {
    return N >= 0 && C >= 1 && P >= 0 && G >= 1 && C % G == 0 && threads >= 1;
}

template <class T> Problem<T> problem(const void* x, const void* gamma, const void* beta, const void* scale,
                                      const void* shift, int64_t N, int64_t C, int64_t P, int64_t G) {
    return {(const T*)x, (const T*)gamma, (const T*)beta, (const T*)scale, (const T*)shift, N, C, P, G, C / G};
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
        auto work = BEST(forward<T>);
        each_task(p, threads, [&](int64_t first, int64_t end) { work(p, first, end); });
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
        auto work = BEST(backward<T>);
        each_task(p, threads, [&](int64_t first, int64_t end) { work(p, first, end); });
        auto rows = BEST(over_rows<T>);
        parallel(ceil_div(C, CHANNELS), worth_waking(threads, N * C, 2),
                 [&](int64_t task, int) { rows(p, task * CHANNELS, std::min(C, (task + 1) * CHANNELS)); });
    });
}
#endif
