// Draws from PixelCNN on a CPU, for the arithmetic of one pass.   Room: kernels/pixelcnn_sample.py
//
// A task is up to 8 samples, for the whole walk over the pixels: they share the loads of the weights, and the lanes of
// a vector are output channels. The order of a sample's sums depends neither on its neighbours nor on the number of
// threads.

#ifndef SET    // ---- the problem, once for all instruction sets ---------------------------------------------------
#include <algorithm>
#include "cpu/numbers.h"
#include "cpu/threads.h"
#include "pixelcnn_sample.h"

namespace {

constexpr int TILE = 8;           // samples of a task, at most
constexpr int MOST_TAPS = 512;    // summed at a time

}    // namespace

#define EACH_SET "../pixelcnn_sample.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the walk, read by csrc/cpu/each_set.h for each instruction set ----------------------------------

// Streams of a task are (depth, W, samples, channels): where the first sample's channels of a pixel are
template <class T> static T* at(const Problem<T>& p, T* z, int samples, const Stream& s, int64_t i, int64_t j) {
    return z + (s.offset + (i % s.depth * p.W + j) * s.channels) * samples;
}

template <class T> struct Piece {    // what a tap adds to the sums
    const T* in;                     // of sample s: from s * stride on, `count` numbers
    int64_t stride, count;
    const T* W;    // (channels, outputs)
};

// y_s[o] = start_s[o] + sum over pieces and channels, for S samples, which share the loads of W, and V vectors of
// outputs from o on
template <class T, int S, int V>
static inline void sums(const Piece<T>* piece, int64_t pieces, int64_t outputs, int64_t o, int64_t rest,
                        const T* const* start, T* y, int64_t width) {
    constexpr int L = LANES<T>;
    const vec<T> zero = {};
    auto part_of = [&](const T* p, int v) { return V > 1 ? load(p + v * L) : load(p, rest); };
    vec<T> sum[S][V], w[V];
    for (int s = 0; s < S; s++)
        for (int v = 0; v < V; v++) sum[s][v] = part_of(start[s] + o, v);
    for (int64_t i = 0; i < pieces; i++) {
        const T *in = piece[i].in, *W = piece[i].W + o;
        int64_t stride = piece[i].stride;
        for (int64_t c = 0; c < piece[i].count; c++, W += outputs) {
            for (int v = 0; v < V; v++) w[v] = part_of(W, v);
            for (int s = 0; s < S; s++)
                for (int v = 0; v < V; v++) sum[s][v] = fused(in[s * stride + c] + zero, w[v], sum[s][v]);
        }
    }
    for (int s = 0; s < S; s++)
        for (int v = 0; v < V; v++)
            V > 1 ? store(y + s * width + v * L, sum[s][v]) : store(y + s * width, sum[s][v], rest);
}

// The same for S samples from s0 on and the outputs o0 ... o1 - 1
template <class T, int S, int V>
static void sums_of(const Piece<T>* piece, int64_t pieces, int64_t outputs, int64_t o0, int64_t o1, int s0,
                    const T* const* start, T* y, int64_t width) {
    constexpr int L = LANES<T>;
    Piece<T> here[MOST_TAPS];
    for (int64_t i = 0; i < pieces; i++) here[i] = piece[i], here[i].in += s0 * piece[i].stride;
    start += s0, y += s0 * width - o0;
    int64_t o = o0;
    if constexpr (V > 1)
        for (; o + V * L <= o1; o += V * L) sums<T, S, V>(here, pieces, outputs, o, L, start, y + o, width);
    for (; o < o1; o += L) sums<T, S, 1>(here, pieces, outputs, o, std::min<int64_t>(L, o1 - o), start, y + o, width);
}

// Layer `a` at pixel (i, j), for colour c of it (-1: for all, in a layer by rows), for all samples of the task
template <class T>
static void compute(const Problem<T>& p, const Layer& a, int64_t i, int64_t j, int64_t c, int samples,
                    const T* const* bias, T* z) {
    Piece<T> piece[MOST_TAPS];
    int64_t pieces = 0, colours = c < 0 ? 1 : p.C, width = a.outputs / colours, o0 = c < 0 ? 0 : c * width;
    T *y = z + p.numbers * samples, *halves = y + p.widest * samples;
    const T* start[TILE];    // of the sums: the biases, then what the pieces before gave
    for (int s = 0; s < samples; s++) start[s] = bias[s] + a.bias;
    auto add_pieces = [&] {
        int s = 0;
        for (; s + 8 <= samples; s += 8) sums_of<T, 8, 1>(piece, pieces, a.outputs, o0, o0 + width, s, start, y, width);
        for (; s + 4 <= samples; s += 4) sums_of<T, 4, 2>(piece, pieces, a.outputs, o0, o0 + width, s, start, y, width);
        for (; s < samples; s++) sums_of<T, 1, 4>(piece, pieces, a.outputs, o0, o0 + width, s, start, y, width);
        for (s = 0; s < samples; s++) start[s] = y + s * width - o0;
        pieces = 0;
    };
    for (int64_t t = a.tap; t < a.taps_end; t++) {
        const Tap& tap = p.taps[t];
        const Stream& s = p.streams[tap.stream];
        if (i + tap.di < 0 || j + tap.dj < 0 || j + tap.dj >= p.W) continue;    // x is 0 outside the image
        if (pieces == MOST_TAPS) add_pieces();
        int64_t seen = tap.sight == ALL ? s.channels : (c + (tap.sight == UP_TO)) * s.channels / p.C;
        piece[pieces++] = {at(p, z, samples, s, i + tap.di, j + tap.dj), s.channels, seen, p.weights + tap.weight};
    }
    add_pieces();
    for (int s = 0; s < samples; s++) {
        T* mine = y + s * width;
        auto of = [&](int64_t r) { return at(p, z, samples, p.streams[r], i, j) + s * p.streams[r].channels; };
        const T* residual = a.residual < 0 ? nullptr : of(a.residual) + o0;
        T* raw = a.raw < 0 ? nullptr : of(a.raw) + o0;
        for (int64_t o = 0; o < width; o++) {
            if (residual) mine[o] += residual[o];
            if (raw) raw[o] = mine[o];
        }
        if (a.after < 0) continue;
        T* after = of(a.after);
        if (a.act == RELU)
            for (int64_t o = 0; o < width; o++) after[o0 + o] = mine[o] < 0 ? T(0) : mine[o];    // NaN stays NaN
        else {    // tanh f = 2 sigma(2 f) - 1; the pairs (f, g) are neighbours
            int64_t half = width / 2;
            for (int64_t k = 0; k < half; k++) halves[k] = mine[2 * k], halves[half + k] = mine[2 * k + 1];
            each_vector<T>(half, [&](int64_t k, int64_t rest) {
                vec<T> f = load(halves + k, rest), g = load(halves + half + k, rest);
                store(after + o0 / 2 + k, (T(2) * sigma<T>(T(2) * f) - T(1)) * sigma<T>(g), rest);
            });
        }
    }
}

// Samples n0 ... n0 + samples - 1
template <class T> static void walk(const Problem<T>& p, int64_t n0, int samples, T* z) {
    const T* bias[TILE];
    int64_t D = p.D(), F = p.F();
    for (int s = 0; s < samples; s++) bias[s] = p.biases + p.y[n0 + s] * p.bias_columns;
    const Layer* end = p.layers + p.count;
    const Stream &out = p.streams[end[-1].raw], &in = p.streams[0];
    for (int64_t i = 0; i < p.H; i++) {
        for (const Layer* a = p.layers; a < end; a++)    // by rows: from the rows above
            for (int64_t j = 0; a->rows && j < p.W; j++) compute(p, *a, i, j, -1, samples, bias, z);
        for (int64_t j = 0; j < p.W; j++)
            for (int64_t c = 0; c < p.C; c++) {
                for (const Layer* a = p.layers; a < end; a++)
                    if (!a->rows) compute(p, *a, i, j, c, samples, bias, z);
                for (int s = 0; s < samples; s++) {
                    int64_t d = (i * p.W + j) * p.C + c, nd = (n0 + s) * D + d;
                    const T* l = at(p, z, samples, out, i, j) + s * out.channels + c * F;
                    for (int64_t f = 0; f < F; f++) p.logits[nd * F + f] = l[f];
                    if (d >= p.known) p.x[nd] = drawn(l, p.u[nd], p.L, p.K);
                    embed(p, p.x[nd], c, at(p, z, samples, in, i, j) + s * in.channels);
                }
            }
    }
}

#else
// ---- tasks and entry points -----------------------------------------------------------------------------------------
namespace {

inline int tile(int64_t N, int threads) { return int(std::clamp<int64_t>(ceil_div(N, threads), 1, TILE)); }

// Numbers of a task: the streams, and of one pixel the outputs of a layer, once as summed and once in halves
inline int64_t task_numbers(int64_t numbers, int64_t widest, int samples) {
    return (numbers + 2 * widest + 64) * samples;
}

template <class T> void all_samples(const Problem<T>& p, void* workspace, int threads) {
    int samples = tile(p.N, threads);
    int64_t numbers = task_numbers(p.numbers, p.widest, samples);
    T* z = Arena(workspace).take<T>(threads * numbers);
    auto walk = BEST(walk<T>);
    parallel(ceil_div(p.N, samples), threads, [&](int64_t task, int t) {
        walk(p, task * samples, int(std::min<int64_t>(samples, p.N - task * samples)), z + t * numbers);
    });
}

}    // namespace

// Bytes of the workspace. dtype: 0 float32, 3 float64
extern "C" int64_t pixelcnn_sample_cpu_workspace(int dtype, const void* sizes, int threads) {
    const Sizes& s = *(const Sizes*)sizes;
    Arena arena;
    arena.take<char>(threads * task_numbers(s.numbers, s.widest, tile(s.N, threads)) * (dtype == 0 ? 4 : 8));
    return arena.bytes();
}

// x[:, known:] drawn with u, and the logits (N, D, F). Returns 0, or 1 for a bad argument.
extern "C" int pixelcnn_sample_cpu(int dtype, const void* sizes, const void* u, void* x, const void* y, const void* E,
                                   const void* streams, const void* layers, const void* taps, const void* weights,
                                   const void* biases, void* logits, void* workspace, int threads) {
    const Sizes& s = *(const Sizes*)sizes;
    if (s.N < 0 || s.L < 2 || s.K < 0 || s.C < 1 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Problem<T> p = {s, (const T*)u, (int64_t*)x, (const int64_t*)y, (const T*)E, (const Stream*)streams,
                        (const Layer*)layers, (const Tap*)taps, (const T*)weights, (const T*)biases, (T*)logits,
                        nullptr};    // the workspace is divided below
        all_samples(p, workspace, threads);
    });
}
#endif
