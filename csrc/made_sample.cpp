// Draws from MADE on a CPU, for the arithmetic of one pass.   Room: kernels/made_sample.py
//
// A task is a few vectors of samples, a sample a lane, for the whole walk over the pixels. Activations lie unit by
// unit, the samples of a task side by side: so a weight is loaded once for all of them, and a row of weights is read in
// the order in which it lies. A sample's sums have the order that csrc/cpu/made_sample_lanes.h writes, whatever its
// neighbours and the number of threads.

#include "cpu/cpu.h"

namespace {

constexpr int WIDEST = 4;    // vectors of a task

template <class T> struct Layer {
    const T *W, *b;    // b may be null
    int64_t K;         // numbers in a row of W
};

template <class T> struct Made {
    const T* u;           // (N, D)
    uint8_t* x;           // (N, D): x[:, :known] is read, the rest is written
    int64_t known;
    const int64_t* layers;    // (I + 2, 3): of the hidden layers, of V and of A: where W lies, where b, and K
    const int64_t* ends;      // (I + 1, D + 1): how many units of layer i, of 0 the inputs, have a degree of at most d
    T* logits;            // (N, D, R)
    int64_t I, L, N, D, units;    // of all layers, inputs too
    int64_t R() const { return L == 2 ? 1 : L; }    // outputs a pixel
    int64_t end(int64_t i, int64_t d) const { return d < 0 ? 0 : ends[i * (D + 1) + d]; }
    Layer<T> layer(int64_t i) const {
        return {(const T*)layers[3 * i], (const T*)layers[3 * i + 1], layers[3 * i + 2]};
    }
};

template <class T> struct Walks {
    int lanes;
    void (*samples)(const Made<T>&, int64_t, int, T*);
};

#define LANES_OF "made_sample_lanes.h"
#include "cpu/lanes.h"

// Vectors of a task: few enough that no thread is idle
template <class T> int width(int64_t N, int threads) {
    int64_t vectors = (N + chosen<T>().lanes - 1) / chosen<T>().lanes;
    return int(std::clamp<int64_t>((vectors + threads - 1) / threads, 1, WIDEST));
}

template <class T> void all_samples(const Made<T>& m, void* workspace, int threads) {
    auto& walks = chosen<T>();
    int vectors = width<T>(m.N, threads), samples = vectors * walks.lanes;
    parallel((m.N + samples - 1) / samples, threads, [&](int64_t task, int t) {
        walks.samples(m, task * samples, vectors, aligned<T>(workspace, t * (m.units + m.R()) * samples));
    });
}

}    // namespace

// Bytes of the workspace. dtype: 0 float32, 3 float64
extern "C" int64_t made_sample_cpu_workspace(int dtype, int64_t L, int64_t N, int64_t units, int threads) {
    int64_t single = width<float>(N, threads) * chosen<float>().lanes * 4,
            wide = width<double>(N, threads) * chosen<double>().lanes * 8;
    return threads * (units + (L == 2 ? 1 : L)) * (dtype == 0 ? single : wide) + 64;
}

// x[:, known:] drawn with u, and the logits (N, D, R); I hidden layers, L levels. Returns 0, or 1 for a bad argument.
extern "C" int made_sample_cpu(int dtype, const void* u, void* x, int64_t known, const void* layers, const void* ends,
                               void* logits, void* workspace, int64_t I, int64_t L, int64_t N, int64_t D, int64_t units,
                               int threads) {
    if ((dtype != 0 && dtype != 3) || I < 0 || L < 2 || L > 256 || N < 0 || D < 0 || known < 0 || known > D ||
        threads < 1)
        return 1;
    auto walk = [&](auto zero) {
        using T = decltype(zero);
        Made<T> m = {(const T*)u, (uint8_t*)x, known, (const int64_t*)layers, (const int64_t*)ends, (T*)logits, I, L,
                     N, D, units};
        all_samples(m, workspace, threads);
    };
    dtype == 0 ? walk(float()) : walk(double());
    return 0;
}
