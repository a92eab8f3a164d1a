// NADE: logits of a row in one walk over its pixels, the same walk as a sampler, and the gradient.
// Room: kernels/nade.py
//
//   rung naive       the pass: a block per row, whose threads share the units: a_d in memory, log2(threads) + 2
//                    barriers a pixel; the gradient: a thread per unit, which stores h
//   rung warp_rows   the pass: a warp per row, a_d and h_d in registers: no barrier, no store but of logits; the
//                    gradient: a lane per unit, a warp per row, h recomputed from marks: a sixth of the L2 traffic
//
//   nade_sample, rung naive       a block draws a row, whose threads share the units: a_d in memory; all of them wait
//                                 for a pixel before they add its column of W: log2(threads) + 2 barriers a pixel
//   nade_sample, rung warp_rows   a warp draws a row: a_d stays in its registers, and its lanes know the pixel without
//                                 a barrier: a third of the L2 traffic
//
// x is (N, D) of 0 and 1; u, logits and dl (N, D); W (transposed) and V (D, H); T is float or double. A pixel of 0
// leaves a_d as it is. Rung warp_rows then skips the sigmoids, which are most of the work; all lanes of a warp do so
// together, because they share the row. N, D and H decide the order of each sum, so results repeat bit by bit.

#include "gpu.h"

constexpr int THREADS = 128;    // of a block of the pass
constexpr int WIDEST = 32;      // units of a lane in rung warp_rows: H <= 1024; wider layers take the naive pass
constexpr int SHARED = 163 << 10;    // bytes that a block may have on Ampere; longer rows take the naive gradient

template <class T> struct Pass {
    const T* u;    // null if all pixels are known
    uint8_t* x;    // x[:, :known] is read, the rest is written
    int64_t known;
    const T *W, *V, *b, *c;
    T *logits, *a;    // a (N, H): workspace of the naive rung
    int64_t N, D, H;
};

template <class T> struct Gradient {
    const T* dl;
    const uint8_t* x;
    const T *W, *V, *c;
    T *dW, *dV, *dc;    // (D, H), (D, H), (H)
    T* work;            // naive: (D, H); warp_rows: (groups, 2 D + 1, H)
    int64_t N, D, H, groups;
};

template <class T> __device__ __forceinline__ T sigma(T a) { return T(1) / (T(1) + exp(-a)); }

// x_d, given or drawn: 1 where the noise lies above p(x_d = 0 | x_<d)
template <class T> __device__ __forceinline__ bool pixel(const Pass<T>& p, int64_t n, int64_t d, T l) {
    return d < p.known ? p.x[n * p.D + d] != 0 : p.u[n * p.D + d] >= sigma(-l);
}

// ---- rung naive -----------------------------------------------------------------------------------------------------

template <class T> __global__ void pass_naive(Pass<T> p) {
    __shared__ T part[THREADS];
    __shared__ bool one;
    int64_t n = blockIdx.x, D = p.D, H = p.H;
    T* a = p.a + n * H;
    for (int64_t h = threadIdx.x; h < H; h += THREADS) a[h] = p.c[h];
    for (int64_t d = 0; d < D; d++) {
        T sum = 0;
        for (int64_t h = threadIdx.x; h < H; h += THREADS) sum += p.V[d * H + h] * sigma(a[h]);
        part[threadIdx.x] = sum;
        for (int half = THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (int(threadIdx.x) < half) part[threadIdx.x] += part[threadIdx.x + half];
        }
        if (threadIdx.x == 0) {
            T l = p.b[d] + part[0];
            one = pixel(p, n, d, l);
            p.logits[n * D + d] = l;
            if (d >= p.known) p.x[n * D + d] = one;
        }
        __syncthreads();    // all threads see x_d; and thread 0 has read part before it is written again
        for (int64_t h = threadIdx.x; h < H && one; h += THREADS) a[h] += p.W[d * H + h];
        __syncthreads();    // all threads have read x_d before x_{d+1} is written
    }
}

template <class T> __global__ void backward_naive(Gradient<T> g) {
    int64_t h = blockIdx.x * int64_t(blockDim.x) + threadIdx.x, D = g.D, H = g.H;    // the unit that this thread owns
    if (h >= H) return;
    T *s = g.work + h, *dW = g.dW + h, *dV = g.dV + h, dc = 0;
    for (int64_t d = 0; d < D; d++) dW[d * H] = dV[d * H] = 0;
    for (int64_t n = 0; n < g.N; n++) {
        T a = g.c[h], A = 0;    // A = sum of da_{d'} over d' > d
        for (int64_t d = 0; d < D; d++) {
            s[d * H] = sigma(a);
            if (g.x[n * D + d]) a += g.W[d * H + h];
        }
        for (int64_t d = D - 1; d >= 0; d--) {
            T dl = g.dl[n * D + d], h_d = s[d * H];
            if (g.x[n * D + d]) dW[d * H] += A;                // forward was: a_{d+1} = a_d + W_d x_d
            dV[d * H] += dl * h_d;                             // forward was: l_d = b_d + V_d . h_d
            A += dl * g.V[d * H + h] * (h_d * (1 - h_d));
        }
        dc += A;    // forward was: a_1 = c
    }
    g.dc[h] = dc;
}

// ---- rung warp_rows: the pass ---------------------------------------------------------------------------------------

// Lane l owns the units l, l + 32, ..., U of them.
template <class T, int U> __global__ void pass_warp_rows(Pass<T> p) {
    int lane = threadIdx.x % 32;
    // the row that this warp owns
    int64_t n = blockIdx.x * int64_t(THREADS / 32) + threadIdx.x / 32, D = p.D, H = p.H;
    if (n >= p.N) return;
    T a[U], h[U];
#pragma unroll
    for (int i = 0; i < U; i++) {
        a[i] = lane + 32 * i < H ? p.c[lane + 32 * i] : T(0);
        h[i] = sigma(a[i]);
    }
    for (int64_t d = 0; d < D; d++) {
        const T *V = p.V + d * H, *W = p.W + d * H;
        T sum = 0;
#pragma unroll
        for (int i = 0; i < U; i++)
            if (lane + 32 * i < H) sum += V[lane + 32 * i] * h[i];
        for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        T l = p.b[d] + sum;    // the same bits in every lane: each step adds the same two numbers on both sides
        bool one = pixel(p, n, d, l);
        if (lane == 0) p.logits[n * D + d] = l;
        if (lane == 0 && d >= p.known) p.x[n * D + d] = one;
        if (!one) continue;    // a pixel of 0 changes nothing
#pragma unroll
        for (int i = 0; i < U; i++)
            if (lane + 32 * i < H) h[i] = sigma(a[i] += W[lane + 32 * i]);
    }
}

// ---- rung warp_rows: the gradient -----------------------------------------------------------------------------------

// The gradient of a unit needs no other unit. Block (tile, group) owns the 32 units of a tile, one per lane; its warps
// take the rows of a group in turn. Shared memory has a column for each thread: C marks (a at the start of each chunk
// of B pixels); B numbers h of a chunk, which the row's terms of dV replace; B terms of dW. After each chunk the
// columns of the warps are added in order into work[group].
template <class T> __global__ void backward_warp_rows(Gradient<T> g, int B, int C) {
    int threads = blockDim.x, tid = threadIdx.x, warps = threads / 32;
    int64_t D = g.D, H = g.H, h = blockIdx.x * int64_t(32) + tid % 32;
    int64_t end = (blockIdx.y + 1) * g.N / g.groups;
    T *marks = dynamic_shared<T>() + tid, *of_V = marks + C * threads, *of_W = of_V + B * threads;
    T* work = g.work + blockIdx.y * (2 * D + 1) * H;
    T dc = 0;
    for (int64_t first = blockIdx.y * g.N / g.groups, start = first; first < end; first += warps) {
        int64_t n = first + tid / 32;
        bool mine = n < end && h < H;
        const uint8_t* x = g.x + n * D;
        T a = mine ? g.c[h] : T(0), A = 0;
        for (int64_t d = 0; d < D; d++) {
            if (d % B == 0) marks[d / B * threads] = a;
            if (mine && x[d]) a += g.W[d * H + h];
        }
        for (int64_t d0 = (C - 1) * int64_t(B); d0 >= 0; d0 -= B) {
            int count = int(d0 + B < D ? B : D - d0);
            a = marks[d0 / B * threads];
            T s = sigma(a);
            for (int i = 0; i < count; i++) {
                of_V[i * threads] = s;
                if (mine && x[d0 + i]) s = sigma(a += g.W[(d0 + i) * H + h]);
            }
            for (int i = count - 1; i >= 0; i--) {
                T dl = mine ? g.dl[n * D + d0 + i] : T(0), h_d = of_V[i * threads];
                of_W[i * threads] = mine && x[d0 + i] ? A : T(0);    // forward was: a_{d+1} = a_d + W_d x_d
                of_V[i * threads] = mine ? dl * h_d : T(0);          // forward was: l_d = b_d + V_d . h_d
                if (mine) A += dl * g.V[(d0 + i) * H + h] * (h_d * (1 - h_d));
            }
            __syncthreads();
            for (int e = tid; e < 2 * count * 32; e += threads) {    // sum e: first those of dV, then those of dW
                int i = e / 32 % count;
                int64_t unit = blockIdx.x * int64_t(32) + e % 32, at = ((e / 32 < count ? 0 : D) + d0 + i) * H + unit;
                const T* column = (e / 32 < count ? of_V : of_W) - tid + i * threads + e % 32;
                T sum = 0;
                for (int w = 0; w < warps; w++) sum += column[w * 32];
                if (unit < H) work[at] = first == start ? sum : work[at] + sum;
            }
            __syncthreads();
        }
        dc += A;    // forward was: a_1 = c
    }
    marks[0] = dc;
    __syncthreads();
    if (tid < 32 && h < H) {
        T sum = 0;
        for (int w = 0; w < warps; w++) sum += marks[w * 32];
        work[2 * D * H + h] = sum;
    }
}

template <class T> __global__ void add_groups(Gradient<T> g) {    // work[0] + work[1] + ... -> dV, dW, dc
    int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x, DH = g.D * g.H, all = 2 * DH + g.H;
    if (i >= all) return;
    T sum = 0;
    for (int64_t k = 0; k < g.groups; k++) sum += g.work[k * all + i];
    if (i < DH) g.dV[i] = sum;
    else if (i < 2 * DH) g.dW[i - DH] = sum;
    else g.dc[i - 2 * DH] = sum;
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T, int U> int pass_of_units(const Pass<T>& p, void* stream) {
    const dim3 warps_of_rows(ceil_div(32 * p.N, THREADS));
    if constexpr (U > WIDEST) return launch(pass_naive<T>, dim3(p.N), dim3(THREADS), 0, stream, p);
    else if (p.H <= 32 * U) return launch(pass_warp_rows<T, U>, warps_of_rows, dim3(THREADS), 0, stream, p);
    else return pass_of_units<T, 2 * U>(p, stream);
}

static int pass(bool naive, int dtype, const void* u, void* x, int64_t known, const void* W, const void* V,
                const void* b, const void* c, void* logits, void* a, int64_t N, int64_t D, int64_t H, void* stream) {
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Pass<T> p = {(const T*)u, (uint8_t*)x, known, (const T*)W, (const T*)V, (const T*)b,
                     (const T*)c, (T*)logits, (T*)a, N, D, H};
        return naive ? launch(pass_naive<T>, dim3(N), dim3(THREADS), 0, stream, p) : pass_of_units<T, 1>(p, stream);
    });
}

template <class T> int gradient_of_warp_rows(const Gradient<T>& g, void* stream) {
    int64_t B = 1, threads = 256;
    while (2 * B * B < g.D) B *= 2;    // 2 B + C is least at B = sqrt(D / 2)
    int64_t C = ceil_div(g.D, B), column = (C + 2 * B) * int64_t(sizeof(T));
    while (threads > 32 && threads * column > 100 << 10) threads /= 2;    // two blocks a multiprocessor
    if (threads * column > SHARED)
        return launch(backward_naive<T>, dim3(ceil_div(g.H, THREADS)), dim3(THREADS), 0, stream, g);
    int code = launch(backward_warp_rows<T>, dim3(ceil_div(g.H, 32), g.groups), dim3(threads), threads * column, stream,
                      g, int(B), int(C));
    if (code) return code;
    return launch(add_groups<T>, dim3(ceil_div((2 * g.D + 1) * g.H, THREADS)), dim3(THREADS), 0, stream, g);
}

static int backward(bool naive, int dtype, const void* dl, const void* x, const void* W, const void* V, const void* c,
                    void* dW, void* dV, void* dc, void* work, int64_t groups, int64_t N, int64_t D, int64_t H,
                    void* stream) {
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Gradient<T> g = {(const T*)dl, (const uint8_t*)x, (const T*)W, (const T*)V, (const T*)c,
                         (T*)dW, (T*)dV, (T*)dc, (T*)work, N, D, H, groups};
        return naive ? launch(backward_naive<T>, dim3(ceil_div(H, THREADS)), dim3(THREADS), 0, stream, g)
                     : gradient_of_warp_rows(g, stream);
    });
}

#define RUNG(rung, naive)                                                                                            \
    extern "C" int nade_##rung(int dtype, const void* u, void* x, int64_t known, const void* W, const void* V,       \
                               const void* b, const void* c, void* logits, void* a, int64_t N, int64_t D, int64_t H, \
                               void* stream) {                                                                       \
        return pass(naive, dtype, u, x, known, W, V, b, c, logits, a, N, D, H, stream);                              \
    }                                                                                                                \
    extern "C" int nade_backward_##rung(int dtype, const void* dl, const void* x, const void* W, const void* V,      \
                                        const void* c, void* dW, void* dV, void* dc, void* work, int64_t groups,     \
                                        int64_t N, int64_t D, int64_t H, void* stream) {                             \
        return backward(naive, dtype, dl, x, W, V, c, dW, dV, dc, work, groups, N, D, H, stream);                    \
    }

RUNG(naive, true)
RUNG(warp_rows, false)
