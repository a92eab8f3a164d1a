// What csrc/pixelcnn_sample.cpp and .cu share: the list of layers, and how a number is drawn.
// Room: kernels/pixelcnn_sample.py
#pragma once
#include "draw.h"

namespace {

// A row of each table, and the sizes of a call. Python writes the same fields in the same order, all int64_t
struct Stream {
    int64_t channels, depth, offset;    // (depth, W, channels) from `offset` on, for each sample: the last `depth` rows
};
struct Layer {
    int64_t outputs, act, raw, after, residual;    // raw, after, residual: streams, or -1
    int64_t bias, tap, taps_end, rows;             // its columns from `bias` on; tap ... taps_end - 1; whether by rows
};
struct Tap {
    int64_t stream, di, dj, sight, weight;    // weight (channels, outputs)
};
enum Act : int64_t { RELU = 1,
                     GATE = 2 };
enum Sight : int64_t { ALL = 0,
                       EARLIER = 1,    // of this pixel the colours before the one that is computed
                       UP_TO = 2 };    // and that one too

struct Sizes {
    int64_t known, N, H, W, C, L, M, K;              // L levels; M columns of E; K logistics, or 0
    int64_t count, numbers, widest, bias_columns;    // layers; numbers of all streams; the most outputs of a layer
};

template <class T> struct Problem : Sizes {
    const T* u;          // (N, D) with D = H W C: rows, pixels, colours
    int64_t* x;          // (N, D): x[:, :known] is read, the rest is written
    const int64_t* y;    // (N): the class, which is a row of biases
    const T* E;          // (L, M): the row of a level is its input to the network
    const Stream* streams;
    const Layer* layers;
    const Tap* taps;
    const T *weights, *biases;    // biases (classes, bias_columns)
    T *logits, *z;                // (N, D, F); the workspace
    EITHER int64_t D() const { return H * W * C; }
    EITHER int64_t F() const { return K ? 3 * K : (L == 2 ? 1 : L); }
};

// P(x <= level), of a mixture of K logistics
template <class T> EITHER T mixture_below(const T* l, int64_t L, int64_t K, int64_t level) {
    T edge = T(2 * level + 1) / T(L - 1) - T(1), top = l[0], total = 0, below = 0;
    for (int64_t k = 1; k < K; k++) top = l[k] > top ? l[k] : top;
    for (int64_t k = 0; k < K; k++) total += exp(l[k] - top);
    for (int64_t k = 0; k < K; k++) {
        T log_s = l[2 * K + k] < T(-7) ? T(-7) : l[2 * K + k];
        below += exp(l[k] - top) / total / (T(1) + exp(-(edge - l[K + k]) * exp(-log_s)));
    }
    return below;
}

// How many of P(x <= 0), ..., P(x <= L-2) are at most u
template <class T> EITHER int64_t drawn(const T* l, T u, int64_t L, int64_t K) {
    if (K) {    // they ascend: halve
        int64_t low = 0, high = L - 1;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (u >= mixture_below(l, L, K, middle)) low = middle + 1;
            else high = middle;
        }
        return low;
    }
    return drawn_level(l, u, L);
}

// The input of colour c of a pixel: row `level` of the table E; a level out of range is taken for the nearest one
template <class T> EITHER void embed(const Problem<T>& p, int64_t level, int64_t c, T* pixel) {
    if (level < 0) level = 0;
    if (level >= p.L) level = p.L - 1;
    const T* row = p.E + level * p.M;
    for (int64_t k = 0; k < p.M; k++) pixel[c * p.M + k] = row[k];
}

}    // namespace
