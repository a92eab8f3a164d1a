// What csrc/pixelcnn_sample.cpp and .cu share: the program of layers, and how a number is drawn.   Room: kernels/pixelcnn_sample.py
#pragma once
#include <cmath>
#include <cstdint>
#if !defined(__device__)
#define __device__
#endif

namespace {

struct Stream {    // activations of a pixel, kept for as many rows as somebody looks back
    int64_t channels, depth, offset;    // (depth, W, channels) from `offset` on, for each sample
};
struct Layer {
    int64_t outputs, act, raw, after, residual, bias, tap, taps_end, rows;    // streams are -1 if there is none; rows: all pixels of a row at once
};
struct Tap {
    int64_t stream, di, dj, sight, weight;    // weight (channels, outputs)
};
enum { RELU = 1,
       GATE = 2 };
enum { ALL = 0,
       EARLIER = 1,    // of this pixel the colours before the one that is computed
       UP_TO = 2 };    // and that one too

template <class T> struct Problem {
    const T* u;         // (N, D) with D = H W C: rows, pixels, colours
    int64_t* x;         // (N, D): x[:, :known] is read, the rest is written
    const int64_t* y;   // (N): the class, which chooses a row of biases
    const Stream* streams;
    const Layer* layers;
    const Tap* taps;
    const T *weights, *biases;    // biases (classes, bias_columns)
    T *logits, *z;                // (N, D, F); the workspace
    int64_t known, N, H, W, C, L, K, count, numbers, widest, bias_columns;    // L levels, K logistics or 0; `count` layers; `widest` outputs
    __device__ int64_t D() const { return H * W * C; }
    __device__ int64_t F() const { return K ? 3 * K : L == 2 ? 1
                                                             : L; }
    __device__ int64_t steps() const { return L - 1 < 32 ? L - 1 : 32; }
};

// P(x <= level), of a mixture of K logistics
template <class T> __device__ T mixture_below(const T* l, int64_t L, int64_t K, int64_t level) {
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
template <class T> __device__ int64_t drawn(const T* l, T u, int64_t L, int64_t K) {
    if (K) {    // they ascend: halve
        int64_t low = 0, high = L - 1;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (u >= mixture_below(l, L, K, middle)) low = middle + 1;
            else high = middle;
        }
        return low;
    }
    if (L == 2) return u >= T(1) / (T(1) + exp(l[0]));
    T top = l[0], total = 0, below = 0;
    int64_t level = 0;
    for (int64_t k = 1; k < L; k++) top = l[k] > top ? l[k] : top;
    for (int64_t k = 0; k < L; k++) total += exp(l[k] - top);
    for (int64_t k = 0; k < L - 1; k++) {
        below += exp(l[k] - top) / total;
        level += u >= below;
    }
    return level;
}

// The inputs that colour c of a pixel gives: 1, and the steps below its level
template <class T> __device__ void embed(int64_t level, int64_t L, int64_t steps, T* z) {
    T scaled = T(level) * T(double(steps) / double(L - 1));
    z[0] = 1;
    for (int64_t k = 0; k < steps; k++) {
        T part = scaled - T(k);
        z[1 + k] = part < 0 ? T(0) : (part > 1 ? T(1) : part);
    }
}

}    // namespace
