// Draws from MADE: all pixels in one launch, with the arithmetic of one pass.   Room: kernels/made_sample.py
//
//   rung naive    a block a sample; one unit after the other, its sum shared by all threads: log2(threads) + 1 barriers
//                 a unit
//   rung tiles    a block up to 8 samples, 4 units at a time, their sums shared by the warps, whose lanes exchange
//                 halves of them: 31 shuffles for 32 sums, not 160; activations in shared memory where they fit
//
// A block walks over the pixels d = 0 ... D-1; pixel d has degree d + 1. At step d it computes, layer by layer, the
// units of degree d, which depend on the pixels before d alone; then the logits of pixel d; then the pixel. The shapes
// alone decide the order of each sum.

#include "gpu.h"
#include "draw.h"
#include "lanes.h"
#include "made_sample.h"

constexpr int DEEPEST = 64;       // hidden layers and V of a launch; A comes behind them
constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int UNITS = 4;          // computed at a time in rung tiles
constexpr int MOST_SHARED = 96 << 10;    // bytes: what every card since sm_80 has

template <class T> struct Made : Sizes {
    int64_t R;     // outputs a pixel: 1 if L = 2, else L
    const T* u;    // (N, D)
    uint8_t* x;    // (N, D): x[:, :known] is read, the rest is written
    int64_t* ends;    // (I + 1, D + 1): how many units of layer i, of 0 the inputs, have a degree of at most d
    T *logits, *z;    // (N, D, R); (N, units): workspace
    Layer<T> layer[DEEPEST + 1];    // hidden, V, A
};

// Writes `ends`: a thread a pair (i, d), which halves the ascending degrees of layer i
template <class T> __global__ void find_ends(Made<T> m) {
    int64_t at = blockIdx.x * int64_t(THREADS) + threadIdx.x, i = at / (m.D + 1), d = at % (m.D + 1);
    if (i > m.I) return;
    int64_t low = i ? 0 : d * (m.L - 1), high = i ? m.layer[i].K : low;    // the layer above reads all units of layer i
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (m.layer[i - 1].degrees[middle] <= d) low = middle + 1;
        else high = middle;
    }
    m.ends[at] = low;
}

// Units of layer i with a degree of at most d
template <class T> __device__ __forceinline__ int64_t end_of(const Made<T>& m, int64_t i, int64_t d) {
    return d < 0 ? 0 : m.ends[i * (m.D + 1) + d];
}

// Writes pixel d of sample n, given or drawn, and its bits as inputs. One thread calls it.
template <class T> __device__ void pixel(const Made<T>& m, int64_t n, int64_t d, T* z) {
    const T* l = m.logits + (n * m.D + d) * m.R;
    int64_t level = m.x[n * m.D + d];
    if (d >= m.known) {
        level = drawn_level(l, m.u[n * m.D + d], m.L);
        m.x[n * m.D + d] = uint8_t(level);
    }
    for (int64_t k = 1; k < m.L; k++) z[d * (m.L - 1) + k - 1] = level >= k ? T(1) : T(0);
}

// The units j0 ... j1 - 1 of a layer at a step d. They read the first `seen` numbers of z^{i-1}, which begin at `below`
template <class T> struct Step {
    int64_t j0, j1, below, seen;
};
template <class T> __device__ __forceinline__ Step<T> step(const Made<T>& m, int64_t i, int64_t d, int64_t below) {
    if (i > m.I) return {d * m.R, (d + 1) * m.R, below, end_of(m, m.I, d)};
    return {end_of(m, i, d - 1), end_of(m, i, d), below, end_of(m, i - 1, d)};
}

// ---- rung naive -----------------------------------------------------------------------------------------------------

template <class T> __global__ void walk_naive(Made<T> m) {
    __shared__ T part[THREADS];
    int64_t n = blockIdx.x, tid = threadIdx.x;
    T* z = m.z + n * m.units;
    for (int64_t d = 0; d < m.D; d++) {
        int64_t below = 0;    // where z^{i-1} begins
        for (int64_t i = 1; i <= m.I + 1; i++) {
            Layer<T> layer = m.layer[i - 1], A = m.layer[m.I + 1];
            Step<T> s = step(m, i, d, below);
            int64_t here = below + end_of(m, i - 1, m.D);
            for (int64_t j = s.j0; j < s.j1; j++) {
                T sum = 0;
                for (int64_t k = tid; k < s.seen; k += THREADS) sum += layer.W[j * layer.K + k] * z[below + k];
                for (int64_t k = tid; i > m.I && A.W && k < end_of(m, 0, d); k += THREADS)
                    sum += A.W[j * A.K + k] * z[k];
                part[tid] = sum;
                for (int half = THREADS / 2; half > 0; half /= 2) {
                    __syncthreads();
                    if (tid < half) part[tid] += part[tid + half];
                }
                if (tid == 0) {
                    T y = part[0] + (layer.b ? layer.b[j] : T(0));
                    if (i > m.I) m.logits[n * m.D * m.R + j] = y;
                    else z[here + j] = y < 0 ? T(0) : y;    // NaN stays NaN
                }
                __syncthreads();    // all threads see z_j; and thread 0 has read part before it is written again
            }
            below = here;
        }
        if (tid == 0) pixel(m, n, d, z);
        __syncthreads();    // all threads see the bits of pixel d
    }
}

// ---- rung tiles -----------------------------------------------------------------------------------------------------

// sum[r][s] += W_{j+r} . z of sample s, over this thread's share of k; j + r < j1, s < count
template <class T, int S>
__device__ __forceinline__ void add_dots(T (&sum)[UNITS][S], const T* W, int64_t K, int64_t j, int64_t j1, int64_t seen,
                                         const T* z, int64_t stride, int count) {
    for (int64_t k = threadIdx.x; k < seen; k += THREADS) {
        T zk[S];
#pragma unroll
        for (int s = 0; s < S; s++) zk[s] = s < count ? z[s * stride + k] : T(0);
#pragma unroll
        for (int r = 0; r < UNITS; r++) {
            if (j + r >= j1) break;
            T w = W[(j + r) * K + k];
#pragma unroll
            for (int s = 0; s < S; s++) sum[r][s] += w * zk[s];
        }
    }
}

template <class T, int S> __global__ void walk_tiles(Made<T> m, bool shared) {
    __shared__ T part[WARPS][UNITS * S];
    int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
    int64_t n0 = blockIdx.x * int64_t(S);
    int count = int(m.N - n0 < S ? m.N - n0 : S);
    T* z = shared ? dynamic_shared<T>() : m.z + n0 * m.units;    // of sample s: from s * units on
    for (int64_t d = 0; d < m.D; d++) {
        int64_t below = 0;    // where z^{i-1} begins
        for (int64_t i = 1; i <= m.I + 1; i++) {
            Layer<T> layer = m.layer[i - 1], A = m.layer[m.I + 1];
            Step<T> t = step(m, i, d, below);
            int64_t here = below + end_of(m, i - 1, m.D);
            for (int64_t j = t.j0; j < t.j1; j += UNITS) {
                T sum[UNITS][S] = {};
                add_dots(sum, layer.W, layer.K, j, t.j1, t.seen, z + below, m.units, count);
                if (i > m.I && A.W) add_dots(sum, A.W, A.K, j, t.j1, end_of(m, 0, d), z, m.units, count);
                // sums of units from j1 on are 0, and nobody reads them
                T all = fold<UNITS * S, 32>(&sum[0][0], [](T a, T b) { return a + b; });
                if (lane % (32 / (UNITS * S)) == 0) part[warp][folded<UNITS * S, 32>()] = all;
                __syncthreads();
                int r = tid / S, s = tid % S;
                if (r < UNITS && j + r < t.j1 && s < count) {
                    T y = layer.b ? layer.b[j + r] : T(0);
                    for (int w = 0; w < WARPS; w++) y += part[w][r * S + s];
                    if (i > m.I) m.logits[(n0 + s) * m.D * m.R + j + r] = y;
                    else z[s * m.units + here + j + r] = y < 0 ? T(0) : y;    // NaN stays NaN
                }
                __syncthreads();    // all threads see these units; and part is read before it is written again
            }
            below = here;
        }
        if (tid < count) pixel(m, n0 + tid, d, z + tid * m.units);
        __syncthreads();    // all threads see the bits of pixel d
    }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T, int S> int tiles_of(const Made<T>& m, void* stream) {
    if constexpr (S < 8)
        // 128 blocks keep a GPU busy; beyond that a block takes more samples
        if (m.N > 128 * S) return tiles_of<T, 2 * S>(m, stream);
    size_t bytes = S * m.units * sizeof(T);
    bool shared = bytes <= MOST_SHARED;
    return launch(walk_tiles<T, S>, dim3(ceil_div(m.N, S)), dim3(THREADS), shared ? bytes : 0, stream, m, shared);
}

template <class T>
int walk(bool naive, const Sizes& sizes, const void* layers, const void* u, void* x, void* ends, void* logits, void* z,
         void* stream) {
    const int64_t R = sizes.L == 2 ? 1 : sizes.L;
    Made<T> m = {sizes, R, (const T*)u, (uint8_t*)x, (int64_t*)ends, (T*)logits, (T*)z, {}};
    for (int64_t i = 0; i < m.I + 2; i++) m.layer[i] = ((const Layer<T>*)layers)[i];
    int64_t pairs = (m.I + 1) * (m.D + 1);
    int failed = launch(find_ends<T>, dim3(ceil_div(pairs, THREADS)), dim3(THREADS), 0, stream, m);
    if (failed) return failed;
    return naive ? launch(walk_naive<T>, dim3(m.N), dim3(THREADS), 0, stream, m) : tiles_of<T, 1>(m, stream);
}

// sizes, and layers (I + 2): of the hidden ones, of V and of A, lie in the memory of the host
static int made_sample(bool naive, int dtype, const void* sizes, const void* layers, const void* u, void* x,
                       void* ends, void* logits, void* z, void* stream) {
    const Sizes& s = *(const Sizes*)sizes;
    if (s.I < 0 || s.I + 1 > DEEPEST || s.L < 2 || s.L > 256) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        return walk<decltype(zero)>(naive, s, layers, u, x, ends, logits, z, stream);
    });
}

#define RUNG(rung, naive)                                                                                       \
    extern "C" int made_sample_##rung(int dtype, const void* sizes, const void* layers, const void* u, void* x, \
                                      void* ends, void* logits, void* z, void* stream) {                        \
        return made_sample(naive, dtype, sizes, layers, u, x, ends, logits, z, stream);                         \
    }

RUNG(naive, true)
RUNG(tiles, false)
