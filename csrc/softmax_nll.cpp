// nll = (m - a_t) + log s of each pixel's logits a, m = max a_l, s = sum_l exp(a_l - m), and its gradient, on a CPU.
// Room: kernels/softmax_nll.py
//
// The lanes of a vector are pixels, wherever their logits lie: a tile of LEVELS levels of some pixels is copied, and
// transposed where the levels lie side by side, and stays in the first cache until its maximum is known. So a pixel's
// sum has one order: that of its levels, in blocks. Results depend neither on strides nor on the number of threads.
// The gradient waits for no maximum, and where pixels lie side by side it needs no copy.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <cmath>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

constexpr int64_t LEVELS = 64;    // of a tile
constexpr int VECTORS = 4;        // of pixels in a tile

struct Strides {
    int64_t n, l, p;
};

template <class T> struct Problem {
    const T* a;          // (N, L, P), of these strides
    const int64_t* t;    // (N, P)
    T *nll, *m, *log_s;  // (N, P); the gradient reads m and log s
    const T* dnll;       // (N, P)
    T* da;               // (N, L, P), of these strides
    int64_t N, L, P;
    Strides of_a, of_da;
};

}    // namespace

#define EACH_SET "../softmax_nll.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the arithmetic, read by csrc/cpu/each_set.h for each instruction set ----------------------------
#include "cpu/logarithm.h"

template <class T> using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

// LANES<T> pixels r, r + 1, ... and where their level 0 lies. At the end there are fewer, and the last is repeated
template <class T> struct Pixels {
    int64_t at[LANES<T>], count;
    bool side_by_side;

    void begin(const Problem<T>& p, const Strides& of, int64_t r, int64_t end) {
        count = end - r < LANES<T> ? end - r : LANES<T>;
        int64_t n = r / p.P, q = r % p.P;
        side_by_side = of.p == 1 && count == LANES<T> && q + count <= p.P;
        for (int l = 0; l < LANES<T>; l++) {
            at[l] = n * of.n + q * of.p;
            if (l + 1 < count && ++q == p.P) n++, q = 0;
        }
    }
};

// Rows become columns: halves of the square are exchanged, then quarters, down to single numbers
template <class T> static inline void transpose(vec<T>* square) {
    constexpr int L = LANES<T>;
    vec<Int<T>> lane;
    for (int l = 0; l < L; l++) lane[l] = l;
#pragma GCC unroll 4
    for (int h = L / 2; h; h /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < L; i++)
            if (!(i & h)) {
                const vec<T> a = square[i], b = square[i + h];
                const auto is_b = (lane & h) != 0;
                square[i] = __builtin_shuffle(a, b, lane + (is_b & (L - h)));
                square[i + h] = __builtin_shuffle(a, b, lane + h + (is_b & (L - h)));
            }
}

// Levels l0 ... l1-1 of these pixels: tile[l - l0] has one vector of them, `stride` numbers after the one before
template <class T>
static inline void read(const T* a, const Strides& of, const Pixels<T>& at, int64_t l0, int64_t l1, T* tile,
                        int64_t stride) {
    constexpr int L = LANES<T>;
    int64_t l = l0;
    if (at.side_by_side) {
        for (; l < l1; l++) {
            const T* here = a + at.at[0] + l * of.l;
            __builtin_prefetch(here + VECTORS * L);    // for the next tile; its rows lie in many pages
            store(tile + (l - l0) * stride, load(here));
        }
    } else if (of.l == 1) {
        for (; l + L <= l1; l += L) {
            vec<T> square[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; i++) square[i] = load(a + at.at[i] + l);
            transpose<T>(square);
#pragma GCC unroll 16
            for (int i = 0; i < L; i++) store(tile + (l - l0 + i) * stride, square[i]);
        }
    }
    for (; l < l1; l++)
        for (int i = 0; i < L; i++) tile[(l - l0) * stride + i] = a[at.at[i] + l * of.l];
}

template <class T>
static inline void write(T* a, const Strides& of, const Pixels<T>& at, int64_t l0, int64_t l1, const T* tile,
                         int64_t stride) {
    constexpr int L = LANES<T>;
    int64_t l = l0;
    if (at.side_by_side) {
        for (; l < l1; l++) {
            T* here = a + at.at[0] + l * of.l;
            __builtin_prefetch(here + VECTORS * L, 1);
            store(here, load(tile + (l - l0) * stride));
        }
    } else if (of.l == 1) {
        for (; l + L <= l1; l += L) {
            vec<T> square[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; i++) square[i] = load(tile + (l - l0 + i) * stride);
            transpose<T>(square);
            for (int i = 0; i < L && i < at.count; i++) store(a + at.at[i] + l, square[i]);
        }
    }
    for (; l < l1; l++)
        for (int i = 0; i < at.count; i++) a[at.at[i] + l * of.l] = tile[(l - l0) * stride + i];
}

// nll of V vectors of pixels, of those before `end`. A NaN makes s one, whether or not m has lost it
template <int V, class T> static inline void nll_of_tile(const Problem<T>& p, int64_t r0, int64_t end) {
    constexpr int L = LANES<T>;
    const vec<T> zero = {}, none = -T(INFINITY) + zero;
    T tile[LEVELS * V * L];
    Pixels<T> at[V];
    vec<T> m[V], s[V];
    for (int v = 0; v < V; v++) at[v].begin(p, p.of_a, r0 + v * L, end), m[v] = none, s[v] = zero;
    for (int64_t l0 = 0; l0 < p.L; l0 += LEVELS) {
        const int64_t l1 = l0 + LEVELS < p.L ? l0 + LEVELS : p.L;
        for (int v = 0; v < V; v++) read(p.a, p.of_a, at[v], l0, l1, tile + v * L, V * L);
        vec<T> top[V], least[V], sum[V];
        for (int v = 0; v < V; v++) top[v] = m[v], sum[v] = zero;
        for (int64_t l = 0; l < l1 - l0; l++)
            for (int v = 0; v < V; v++) top[v] = most(top[v], load(tile + (l * V + v) * L));
        for (int v = 0; v < V; v++) least[v] = top[v] == none ? zero : top[v];    // exp(-inf - 0) is 0, and not NaN
        for (int64_t l = 0; l < l1 - l0; l++)
            for (int v = 0; v < V; v++) sum[v] += whole_exponential<T>(load(tile + (l * V + v) * L) - least[v]);
        for (int v = 0; v < V; v++) s[v] = s[v] * whole_exponential<T>(m[v] - least[v]) + sum[v], m[v] = top[v];
    }
    for (int v = 0; v < V; v++) {
        const int64_t r = r0 + v * L, many = at[v].count;
        vec<T> nll = m[v];
        const vec<T> log_s = logarithm(s[v]);
        for (int i = 0; i < many; i++) {
            const int64_t t = p.t[r + i];
            const bool known = t >= 0 && t < p.L;
            nll[i] = known ? (m[v][i] - p.a[at[v].at[i] + t * p.of_a.l]) + log_s[i] : 0;
        }
        store(p.nll + r, nll, many), store(p.m + r, m[v], many), store(p.log_s + r, log_s, many);
    }
}

// da of the same: was nll = (m - a_t) + log s
template <int V, class T> static inline void gradient_of_tile(const Problem<T>& p, int64_t r0, int64_t end) {
    constexpr int L = LANES<T>;
    T tile[LEVELS * V * L];
    Pixels<T> at[V], to[V];
    vec<T> m[V], log_s[V], dnll[V];
    vec<Int<T>> t[V];
    for (int v = 0; v < V; v++) {
        const int64_t r = r0 + v * L;
        at[v].begin(p, p.of_a, r, end), to[v].begin(p, p.of_da, r, end);
        const int64_t many = at[v].count;
        m[v] = load(p.m + r, many), log_s[v] = load(p.log_s + r, many), dnll[v] = load(p.dnll + r, many);
        t[v] = vec<Int<T>>{};
        for (int i = 0; i < many; i++) {
            const bool known = p.t[r + i] >= 0 && p.t[r + i] < p.L;
            t[v][i] = known ? p.t[r + i] : 0;
            if (!known) m[v][i] = T(INFINITY), dnll[v][i] = 0;    // q is 0 then
        }
    }
    const auto da = [&](vec<T> a, int v, int64_t l) {
        const vec<T> q = whole_exponential<T>((a - m[v]) - log_s[v]);
        return (t[v] == Int<T>(l) ? q - 1 : q) * dnll[v];
    };
    bool side_by_side = true;
    for (int v = 0; v < V; v++) side_by_side &= at[v].side_by_side && to[v].side_by_side;
    if (side_by_side) {    // no level waits for another, so that none needs a tile
        for (int64_t l = 0; l < p.L; l++)
            for (int v = 0; v < V; v++) {
                const T* from = p.a + at[v].at[0] + l * p.of_a.l;
                T* here = p.da + to[v].at[0] + l * p.of_da.l;
                __builtin_prefetch(from + 2 * VECTORS * L);    // for the tile after the next
                __builtin_prefetch(here + 2 * VECTORS * L, 1);
                store(here, da(load(from), v, l));
            }
        return;
    }
    for (int64_t l0 = 0; l0 < p.L; l0 += LEVELS) {
        const int64_t l1 = l0 + LEVELS < p.L ? l0 + LEVELS : p.L;
        for (int v = 0; v < V; v++) read(p.a, p.of_a, at[v], l0, l1, tile + v * L, V * L);
        for (int64_t l = l0; l < l1; l++)
            for (int v = 0; v < V; v++) {
                T* here = tile + ((l - l0) * V + v) * L;
                store(here, da(load(here), v, l));
            }
        for (int v = 0; v < V; v++) write(p.da, p.of_da, to[v], l0, l1, tile + v * L, V * L);
    }
}

// Pixels r0 ... r1-1: tiles of VECTORS vectors, and of one for the rest
template <class T> static void nll(const Problem<T>& p, int64_t r0, int64_t r1) {
    for (; r0 + VECTORS * LANES<T> <= r1; r0 += VECTORS * LANES<T>) nll_of_tile<VECTORS>(p, r0, r1);
    for (; r0 < r1; r0 += LANES<T>) nll_of_tile<1>(p, r0, r1);
}
template <class T> static void gradient(const Problem<T>& p, int64_t r0, int64_t r1) {
    for (; r0 + VECTORS * LANES<T> <= r1; r0 += VECTORS * LANES<T>) gradient_of_tile<VECTORS>(p, r0, r1);
    for (; r0 < r1; r0 += LANES<T>) gradient_of_tile<1>(p, r0, r1);
}

#else    // ---- the tasks, and the C functions that Python calls -----------------------------------------------------
namespace {

template <class T> using Range = void (*)(const Problem<T>&, int64_t, int64_t);

template <class T> void each_pixel(const Problem<T>& p, int threads, Range<T> pixels) {
    const int64_t R = p.N * p.P, of_a_task = whole(std::max<int64_t>(1, PART / p.L), 64);
    parallel(ceil_div(R, of_a_task), worth_waking(threads, R * p.L, 0.3), [&](int64_t task, int) {
        pixels(p, task * of_a_task, std::min(R, (task + 1) * of_a_task));
    });
}

bool possible(int64_t N, int64_t L, int64_t P, int threads) {
    return N >= 0 && L >= 1 && L <= INT32_MAX && P >= 0 && threads >= 1;
}

}    // namespace

// dtype: 0 float32, 3 float64. All functions return 0, or 1 for a bad argument.
extern "C" int softmax_nll_cpu(int dtype, const void* a, const void* t, void* nll, void* m, void* log_s, int64_t N,
                               int64_t L, int64_t P, int64_t a_n, int64_t a_l, int64_t a_p, int threads) {
    if (!possible(N, L, P, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const T* logits = (const T*)a;
        const int64_t* target = (const int64_t*)t;
        const Strides of_a = {a_n, a_l, a_p}, of_da = {};
        const Problem<T> p = {logits, target, (T*)nll, (T*)m, (T*)log_s, nullptr, nullptr, N, L, P, of_a, of_da};
        each_pixel(p, threads, BEST(nll<T>));
    });
}

extern "C" int softmax_nll_backward_cpu(int dtype, const void* dnll, const void* a, const void* t, const void* m,
                                        const void* log_s, void* da, int64_t N, int64_t L, int64_t P, int64_t a_n,
                                        int64_t a_l, int64_t a_p, int64_t da_n, int64_t da_l, int64_t da_p,
                                        int threads) {
    if (!possible(N, L, P, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const T *logits = (const T*)a, *along = (const T*)dnll;
        const int64_t* target = (const int64_t*)t;
        const Strides of_a = {a_n, a_l, a_p}, of_da = {da_n, da_l, da_p};
        const Problem<T> p = {logits, target, nullptr, (T*)m, (T*)log_s, along, (T*)da, N, L, P, of_a, of_da};
        each_pixel(p, threads, BEST(gradient<T>));
    });
}
#endif
