// Draws from PixelCNN, all pixels in one launch, for the arithmetic of one pass.   Room: kernels/pixelcnn_sample.py
//
//   rung naive     a block a sample; a thread an output channel, for which it adds up all taps and channels: a warp
//                  makes 5 requests for the descriptor of every tap
//   rung groups    a layer has fewer outputs than the block has threads: as many groups of threads as fit share the
//                  channels of every tap, which one thread makes ready for all: 6480 requests for descriptors, not
//                  28800 (4 images of 6 x 6, width 16, 2 blocks)
//
// A block walks over rows, pixels and colours; streams are (depth, W, channels) in its part of the workspace. The
// shapes decide the order of the sums.

#include "gpu.h"
#include "pixelcnn_sample.h"

constexpr int THREADS = 256, TAPS = 64;    // of a block; made ready at a time

template <class T>
__device__ __forceinline__ T* pixel_of(const Problem<T>& p, T* z, int64_t stream, int64_t i, int64_t j) {
    const Stream& s = p.streams[stream];
    return z + s.offset + (i % s.depth * p.W + j) * s.channels;
}

// A tap at a pixel: the numbers that it sees of the pixel that it looks at, and its weights
template <class T> struct Ready {
    const T *in, *W;
    int64_t seen;
};

// Tap t at pixel (i, j), colour c
template <class T>
__device__ __forceinline__ Ready<T> made_ready(const Problem<T>& p, int64_t t, int64_t i, int64_t j, int64_t c, T* z) {
    Tap tap = p.taps[t];
    int64_t channels = p.streams[tap.stream].channels;
    if (i + tap.di < 0 || j + tap.dj < 0 || j + tap.dj >= p.W) return {};    // x is 0 outside the image
    int64_t seen = tap.sight == ALL ? channels : (c + (tap.sight == UP_TO)) * channels / p.C;
    return {pixel_of(p, z, tap.stream, i + tap.di, j + tap.dj), p.weights + tap.weight, seen};
}

// sum += of output o of a layer with so many outputs, of this tap the channels group, group + groups, ...
template <class T>
__device__ __forceinline__ void add_tap(T& sum, Ready<T> tap, int64_t outputs, int64_t o, int group, int groups) {
    for (int64_t k = group; k < tap.seen; k += groups) sum += tap.in[k] * tap.W[k * outputs + o];
}

// s = y + residual -> the streams of layer a, outputs o0 ... o0 + width - 1
template <class T>
__device__ void finish(const Problem<T>& p, const Layer& a, int64_t i, int64_t j, int64_t o0, int64_t width, const T* y,
                       T* z) {
    auto s = [&](int64_t o) { return y[o] + (a.residual < 0 ? T(0) : pixel_of(p, z, a.residual, i, j)[o0 + o]); };
    for (int64_t o = threadIdx.x; o < width; o += THREADS) {
        T v = s(o);
        if (a.raw >= 0) pixel_of(p, z, a.raw, i, j)[o0 + o] = v;
        if (a.after >= 0 && a.act == RELU)
            pixel_of(p, z, a.after, i, j)[o0 + o] = v < 0 ? T(0) : v;    // NaN stays NaN
    }
    // the pairs of a gate are neighbours
    for (int64_t k = threadIdx.x; k < width / 2 && a.after >= 0 && a.act == GATE; k += THREADS)
        pixel_of(p, z, a.after, i, j)[o0 / 2 + k] = tanh(s(2 * k)) / (T(1) + exp(-s(2 * k + 1)));
}

// Layer a at pixel (i, j), colour c of it (-1: all of them)
template <class T, bool GROUPS>
__device__ void compute(const Problem<T>& p, const Layer& a, int64_t i, int64_t j, int64_t c, const T* bias, T* z,
                        T* part, Ready<T>* taps) {
    int64_t width = c < 0 ? a.outputs : a.outputs / p.C, o0 = c < 0 ? 0 : c * width;
    const int64_t outputs = a.outputs, last = a.taps_end;    // read once, not for each tap
    T* y = z + p.numbers;
    int lanes = !GROUPS || width >= THREADS ? THREADS : int((width + 31) / 32 * 32);
    int tid = threadIdx.x, groups = THREADS / lanes;
    for (int64_t first = 0; first < width; first += lanes) {
        int64_t o = first + tid % lanes;
        bool mine = o < width && tid / lanes < groups;
        T sum = 0;
        if (GROUPS) {
            for (int64_t t = a.tap; t < last; t += TAPS) {
                int here = last - t < TAPS ? int(last - t) : TAPS;
                if (tid < here) taps[tid] = made_ready(p, t + tid, i, j, c, z);
                __syncthreads();
                for (int u = 0; u < here && mine; u++) add_tap(sum, taps[u], outputs, o0 + o, tid / lanes, groups);
                if (here == TAPS) __syncthreads();    // taps are read before the next ones are written
            }
            part[tid] = sum;
            __syncthreads();
            for (int g = 1; g < groups && tid < lanes; g++) sum += part[g * lanes + tid];
        } else {
            for (int64_t t = a.tap; t < last && mine; t++)
                add_tap(sum, made_ready(p, t, i, j, c, z), outputs, o0 + o, 0, 1);
        }
        if (mine && tid < lanes) y[o] = sum + bias[a.bias + o0 + o];
        __syncthreads();    // y is visible to all threads, and part may be written again
    }
    finish(p, a, i, j, o0, width, y, z);
    __syncthreads();    // the streams are visible to all threads, and y may be written again
}

template <class T, bool GROUPS> __global__ void walk(Problem<T> p) {
    __shared__ T part[THREADS];
    __shared__ Ready<T> taps[TAPS];
    int64_t n = blockIdx.x, D = p.D(), F = p.F(), out = p.layers[p.count - 1].raw;
    T* z = p.z + n * (p.numbers + p.widest);
    const T* bias = p.biases + p.y[n] * p.bias_columns;
    for (int64_t i = 0; i < p.H; i++) {
        for (int64_t a = 0; a < p.count; a++)    // by rows: from the rows above
            for (int64_t j = 0; p.layers[a].rows && j < p.W; j++)
                compute<T, GROUPS>(p, p.layers[a], i, j, -1, bias, z, part, taps);
        for (int64_t j = 0; j < p.W; j++)
            for (int64_t c = 0; c < p.C; c++) {
                for (int64_t a = 0; a < p.count; a++)
                    if (!p.layers[a].rows) compute<T, GROUPS>(p, p.layers[a], i, j, c, bias, z, part, taps);
                int64_t nd = n * D + (i * p.W + j) * p.C + c;
                const T* l = pixel_of(p, z, out, i, j) + c * F;
                for (int64_t f = threadIdx.x; f < F; f += THREADS) p.logits[nd * F + f] = l[f];
                if (threadIdx.x == 0) {
                    if (nd - n * D >= p.known) p.x[nd] = drawn(l, p.u[nd], p.L, p.K);
                    embed(p, p.x[nd], c, pixel_of(p, z, 0, i, j));
                }
                __syncthreads();    // the input of x_d is visible to all threads
            }
    }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

// sizes lie in the memory of the host, all else in that of the device
template <bool GROUPS>
static int pixelcnn_sample(int dtype, const void* sizes, const void* u, void* x, const void* y, const void* E,
                           const void* streams, const void* layers, const void* taps, const void* weights,
                           const void* biases, void* logits, void* z, void* stream) {
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Problem<T> p = {*(const Sizes*)sizes, (const T*)u, (int64_t*)x, (const int64_t*)y, (const T*)E,
                        (const Stream*)streams, (const Layer*)layers, (const Tap*)taps, (const T*)weights,
                        (const T*)biases, (T*)logits, (T*)z};
        return launch(walk<T, GROUPS>, dim3(p.N), dim3(THREADS), 0, stream, p);
    });
}

#define RUNG(rung, groups)                                                                                       \
    extern "C" int pixelcnn_sample_##rung(int dtype, const void* sizes, const void* u, void* x, const void* y,   \
                                          const void* E, const void* streams, const void* layers,                \
                                          const void* taps, const void* weights, const void* biases,             \
                                          void* logits, void* z, void* stream) {                                 \
        return pixelcnn_sample<groups>(dtype, sizes, u, x, y, E, streams, layers, taps, weights, biases, logits, \
                                       z, stream);                                                               \
    }

RUNG(naive, false)
RUNG(groups, true)
