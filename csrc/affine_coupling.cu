// Affine coupling: y = x e^s + t and logdet_n = sum_d s_nd, its inverse, and the gradients of both.
// Room: kernels/affine_coupling.py
//
//   rung naive      one thread an element; logdet by one thread a row, which reads s a second time: 32 sectors a
//                   request, where 4 could hold it
//   rung one_pass   every number is read once, 16 bytes a lane, 16 of 16 sectors: a quarter of the requests, and DRAM
//                   moves 4 numbers an element forward, not 5; a fixed tree of lanes, warps and chunks sums a row
//
// x, s, t, y are (N, D), contiguous, of one dtype T; logdet (N,) has the type real<T>, in which all arithmetic is
// done. A sum of s is kept in two doubles, high + low. The rung, D and T decide the order of the additions, so results
// repeat bit by bit.

#include "gpu.h"
#include "wide.h"

constexpr int CHUNK = 4096;     // numbers of a row that one block adds (kernels/affine_coupling.py has the same)
constexpr int THREADS = 256;    // of a block
constexpr int SHORT = 512;      // rows up to here are added inside one warp

// ---- the two formulas and their gradients, once for all rungs -------------------------------------------------------

// exact: T fits in real<T>
template <class T> __device__ __forceinline__ real<T> number(T v) { return real<T>(to_double(v)); }
template <class T> __device__ __forceinline__ T rounded(real<T> v) { return from_real<T>(v); }

template <bool inverse, class R> __device__ __forceinline__ R couple(R x, R s, R t) {
    return inverse ? (x - t) * exp(-s) : x * exp(s) + t;
}

// high + low, where low is the sum of the rounding errors of high (Knuth's two-sum: s + e == a + b exactly, unless it
// overflows)
struct Sum {
    double high, low;
    __device__ __forceinline__ void add(double b) {
        double a = high, s = __dadd_rn(a, b), bb = __dsub_rn(s, a);
        double e = __dadd_rn(__dsub_rn(a, __dsub_rn(s, bb)), __dsub_rn(b, bb));
        high = s;
        low = __dadd_rn(low, e == e ? e : 0.0);    // e is NaN after an infinity: the result is then high alone
    }
    __device__ __forceinline__ void add(Sum other) { add(other.high), low = __dadd_rn(low, other.low); }
    __device__ __forceinline__ double value() const { return __dadd_rn(high, low); }
};

// The sum of each aligned group of G lanes, by a fixed tree: the upper half is added to the lower one. All lanes call.
__device__ __forceinline__ Sum group_sum(Sum mine, int G) {
    for (int offset = G / 2; offset > 0; offset /= 2)
        mine.add(Sum{__shfl_down_sync(0xffffffffu, mine.high, offset, G),
                     __shfl_down_sync(0xffffffffu, mine.low, offset, G)});
    return mine;    // the sum in lane 0 of each group
}

__device__ __forceinline__ Sum block_sum(Sum mine) {
    __shared__ Sum warps[THREADS / 32];
    mine = group_sum(mine, 32);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = threadIdx.x < THREADS / 32 ? warps[threadIdx.x] : Sum{0, 0};
    return threadIdx.x < 32 ? group_sum(mine, THREADS / 32) : mine;    // the sum in thread 0
}

// ---- rung naive -----------------------------------------------------------------------------------------------------

template <class T, bool inverse>
__global__ void couple_naive(const T* x, const T* s, const T* t, T* y, int64_t ND) {
    int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;    // the element that this thread owns
    if (i < ND) y[i] = rounded<T>(couple<inverse>(number(x[i]), number(s[i]), number(t[i])));
}

template <class T, bool inverse>
__global__ void logdet_naive(const T* s, real<T>* logdet, int64_t N, int64_t D) {
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;    // the row that this thread owns
    if (n >= N) return;
    Sum sum{0, 0};
    for (int64_t d = 0; d < D; d++) sum.add(to_double(s[n * D + d]));
    logdet[n] = real<T>(inverse ? -sum.value() : sum.value());
}

template <class T>    // t is null: `kept` is x; else `kept` is y
__global__ void backward_naive(const T* dy, const real<T>* dlogdet, const T* kept, const T* s, const T* t, T* dx, T* ds,
                               int64_t D, int64_t ND) {
    int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= ND) return;
    real<T> es = exp(number(s[i]));
    real<T> xes = t ? number(kept[i]) - number(t[i]) : number(kept[i]) * es;    // forward was: y = x e^s + t
    dx[i] = rounded<T>(number(dy[i]) * es);
    ds[i] = rounded<T>(number(dy[i]) * xes + dlogdet[i / D]);
}

template <class T>
__global__ void inverse_backward_naive(const T* dx, const real<T>* dlogdet, const T* x, const T* s, T* dy, T* ds,
                                       int64_t D, int64_t ND) {
    int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= ND) return;
    dy[i] = rounded<T>(number(dx[i]) * exp(-number(s[i])));    // inverse was: x = (y - t) e^-s
    ds[i] = rounded<T>(-number(dx[i]) * number(x[i]) - dlogdet[i / D]);
}

// ---- rung one_pass --------------------------------------------------------------------------------------------------

// One thread's share of a run of numbers: wide loads v = first, first + step, ... below `end` (in units of V numbers).
template <class T, int V, bool inverse>
__device__ __forceinline__ Sum couple_run(const T* x, const T* s, const T* t, T* y, int64_t first, int64_t end,
                                          int step) {
    Sum sum{0, 0};
    for (int64_t v = first; v < end; v += step) {
        Wide<T, V> xv = ((const Wide<T, V>*)x)[v], sv = ((const Wide<T, V>*)s)[v], tv = ((const Wide<T, V>*)t)[v], yv;
        for (int i = 0; i < V; i++) {
            yv.v[i] = rounded<T>(couple<inverse>(number(xv.v[i]), number(sv.v[i]), number(tv.v[i])));
            sum.add(to_double(sv.v[i]));
        }
        ((Wide<T, V>*)y)[v] = yv;
    }
    return sum;
}

// A row belongs to G neighbouring lanes (D <= SHORT). Block: THREADS / G rows.
template <class T, int V, bool inverse>
__global__ void couple_short_rows(const T* x, const T* s, const T* t, T* y, real<T>* logdet, int64_t N, int64_t D,
                                  int G) {
    int64_t n = blockIdx.x * int64_t(THREADS / G) + threadIdx.x / G;
    int lane = threadIdx.x % G;
    Sum sum{0, 0};
    if (n < N) sum = couple_run<T, V, inverse>(x + n * D, s + n * D, t + n * D, y + n * D, lane, D / V, G);
    sum = group_sum(sum, G);    // lanes beyond the last row add zero
    if (n < N && lane == 0) logdet[n] = real<T>(inverse ? -sum.value() : sum.value());
}

// Block (c + C n) owns chunk c of row n.
template <class T, int V, bool inverse>
__global__ void couple_chunks(const T* x, const T* s, const T* t, T* y, Sum* part, int64_t D, int64_t C) {
    int64_t n = blockIdx.x / C, c = blockIdx.x % C, row = n * D;
    int64_t end = (c + 1) * CHUNK < D ? (c + 1) * CHUNK : D;
    Sum sum =
        couple_run<T, V, inverse>(x + row, s + row, t + row, y + row, c * CHUNK / V + threadIdx.x, end / V, THREADS);
    sum = block_sum(sum);
    if (threadIdx.x == 0) part[n * C + c] = sum;
}

template <class T, bool inverse>    // block n adds part[n, :]
__global__ void logdet_of_chunks(const Sum* part, real<T>* logdet, int64_t C) {
    int64_t n = blockIdx.x;
    Sum sum{0, 0};
    for (int64_t c = threadIdx.x; c < C; c += THREADS) sum.add(part[n * C + c]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) logdet[n] = real<T>(inverse ? -sum.value() : sum.value());
}

template <class T, int V>
__global__ void backward_wide(const T* dy, const real<T>* dlogdet, const T* kept, const T* s, const T* t, T* dx, T* ds,
                              int64_t D, int64_t ND) {
    int64_t v = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;    // the wide load that this thread owns; V divides D
    if (v >= ND / V) return;
    Wide<T, V> dyv = ((const Wide<T, V>*)dy)[v], kv = ((const Wide<T, V>*)kept)[v], sv = ((const Wide<T, V>*)s)[v],
               tv = kv, dxv, dsv;
    if (t) tv = ((const Wide<T, V>*)t)[v];
    real<T> dl = dlogdet[v * V / D];
    for (int i = 0; i < V; i++) {
        real<T> es = exp(number(sv.v[i]));
        real<T> xes = t ? number(kv.v[i]) - number(tv.v[i]) : number(kv.v[i]) * es;    // forward was: y = x e^s + t
        dxv.v[i] = rounded<T>(number(dyv.v[i]) * es);
        dsv.v[i] = rounded<T>(number(dyv.v[i]) * xes + dl);
    }
    ((Wide<T, V>*)dx)[v] = dxv, ((Wide<T, V>*)ds)[v] = dsv;
}

template <class T, int V>
__global__ void inverse_backward_wide(const T* dx, const real<T>* dlogdet, const T* x, const T* s, T* dy, T* ds,
                                      int64_t D, int64_t ND) {
    int64_t v = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (v >= ND / V) return;
    Wide<T, V> dxv = ((const Wide<T, V>*)dx)[v], xv = ((const Wide<T, V>*)x)[v], sv = ((const Wide<T, V>*)s)[v], dyv,
               dsv;
    real<T> dl = dlogdet[v * V / D];
    for (int i = 0; i < V; i++) {
        dyv.v[i] = rounded<T>(number(dxv.v[i]) * exp(-number(sv.v[i])));    // inverse was: x = (y - t) e^-s
        dsv.v[i] = rounded<T>(-number(dxv.v[i]) * number(xv.v[i]) - dl);
    }
    ((Wide<T, V>*)dy)[v] = dyv, ((Wide<T, V>*)ds)[v] = dsv;
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T, bool inverse>
int forward_naive(const T* x, const T* s, const T* t, T* y, real<T>* logdet, int64_t N, int64_t D, void* stream) {
    int code = launch(couple_naive<T, inverse>, dim3(ceil_div(N * D, THREADS)), dim3(THREADS), 0, stream, x, s, t, y,
                      N * D);
    if (code) return code;
    return launch(logdet_naive<T, inverse>, dim3(ceil_div(N, THREADS)), dim3(THREADS), 0, stream, s, logdet, N, D);
}

template <class T, int V, bool inverse>
int forward_one_pass(const T* x, const T* s, const T* t, T* y, real<T>* logdet, Sum* part, int64_t N, int64_t D,
                     void* stream) {
    if (D <= SHORT) {
        int G = 1;
        while (G < 32 && G * V < D) G *= 2;
        int64_t rows = THREADS / G;
        return launch(couple_short_rows<T, V, inverse>, dim3(ceil_div(N, rows)), dim3(THREADS), 0, stream, x, s, t,
                      y, logdet, N, D, G);
    }
    int64_t C = ceil_div(D, CHUNK);
    int code = launch(couple_chunks<T, V, inverse>, dim3(N * C), dim3(THREADS), 0, stream, x, s, t, y, part, D, C);
    return code ? code : launch(logdet_of_chunks<T, inverse>, dim3(N), dim3(THREADS), 0, stream, part, logdet, C);
}

template <bool inverse>
int forward(bool one_pass, int dtype, const void* x, const void* s, const void* t, void* y, void* logdet, void* part,
            int64_t N, int64_t D, void* stream) {
    return with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        constexpr int V = 16 / sizeof(T);
        auto X = (const T*)x, S = (const T*)s, U = (const T*)t;
        auto Y = (T*)y;
        auto L = (real<T>*)logdet;
        if (!one_pass) return forward_naive<T, inverse>(X, S, U, Y, L, N, D, stream);
        if (aligned<T>(D, {x, s, t, y}))
            return forward_one_pass<T, V, inverse>(X, S, U, Y, L, (Sum*)part, N, D, stream);
        return forward_one_pass<T, 1, inverse>(X, S, U, Y, L, (Sum*)part, N, D, stream);
    });
}

// Both backwards take the gradient, the kept tensor, s (and t), and write two gradients.
template <bool inverse>
int backward(bool one_pass, int dtype, const void* dy, const void* dlogdet, const void* kept, const void* s,
             const void* t, void* dx, void* ds, int64_t N, int64_t D, void* stream) {
    return with_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        constexpr int V = 16 / sizeof(T);
        auto G = (const T*)dy, K = (const T*)kept, S = (const T*)s, U = (const T*)t;
        auto L = (const real<T>*)dlogdet;
        auto DX = (T*)dx, DS = (T*)ds;
        bool wide = one_pass && aligned<T>(D, {dy, kept, s, t, dx, ds});
        dim3 grid(ceil_div(wide ? N * D / V : N * D, THREADS));
        if constexpr (inverse) {
            if (wide)
                return launch(inverse_backward_wide<T, V>, grid, dim3(THREADS), 0, stream, G, L, K, S, DX, DS, D,
                              N * D);
            return launch(inverse_backward_naive<T>, grid, dim3(THREADS), 0, stream, G, L, K, S, DX, DS, D, N * D);
        } else {
            if (wide)
                return launch(backward_wide<T, V>, grid, dim3(THREADS), 0, stream, G, L, K, S, U, DX, DS, D, N * D);
            return launch(backward_naive<T>, grid, dim3(THREADS), 0, stream, G, L, K, S, U, DX, DS, D, N * D);
        }
    });
}

#define RUNG(rung, one_pass)                                                                                         \
    extern "C" int affine_coupling_##rung(int dtype, const void* x, const void* s, const void* t, void* y,           \
                                          void* logdet, void* part, int64_t N, int64_t D, void* stream) {            \
        return forward<false>(one_pass, dtype, x, s, t, y, logdet, part, N, D, stream);                              \
    }                                                                                                                \
    extern "C" int affine_coupling_inverse_##rung(int dtype, const void* y, const void* s, const void* t, void* x,   \
                                                  void* logdet, void* part, int64_t N, int64_t D, void* stream) {    \
        return forward<true>(one_pass, dtype, y, s, t, x, logdet, part, N, D, stream);                               \
    }                                                                                                                \
    extern "C" int affine_coupling_backward_##rung(int dtype, const void* dy, const void* dlogdet, const void* kept, \
                                                   const void* s, const void* t, void* dx, void* ds, int64_t N,      \
                                                   int64_t D, void* stream) {                                        \
        return backward<false>(one_pass, dtype, dy, dlogdet, kept, s, t, dx, ds, N, D, stream);                      \
    }                                                                                                                \
    extern "C" int affine_coupling_inverse_backward_##rung(int dtype, const void* dx, const void* dlogdet,           \
                                                           const void* x, const void* s, void* dy, void* ds,         \
                                                           int64_t N, int64_t D, void* stream) {                     \
        return backward<true>(one_pass, dtype, dx, dlogdet, x, s, nullptr, dy, ds, N, D, stream);                    \
    }

RUNG(naive, false)
RUNG(one_pass, true)
