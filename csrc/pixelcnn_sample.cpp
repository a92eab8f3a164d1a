// Draws from PixelCNN on a CPU, for the arithmetic of one pass.   Room: kernels/pixelcnn_sample.py
//
// A task is up to 8 samples, for the whole walk over the pixels: they share the loads of the weights, and output channels are the lanes of
// vectors. A sample's sums have the order that csrc/cpu/pixelcnn_sample_lanes.h writes, whatever its neighbours and the number of threads.

#include "cpu/cpu.h"
#include "pixelcnn_sample.h"

namespace {

constexpr int TILE = 8;           // samples of a task, at most
constexpr int MOST_TAPS = 512;    // summed at a time

template <class T> struct Walks {
    void (*samples)(const Problem<T>&, int64_t, int, T*);
};

#define LANES_OF "pixelcnn_sample_lanes.h"
#include "cpu/lanes.h"

inline int tile(int64_t N, int threads) { return int(std::clamp<int64_t>((N + threads - 1) / threads, 1, TILE)); }

// Numbers of a task: the streams, and of one pixel the outputs of a layer, once as summed and once in halves
inline int64_t task_numbers(int64_t numbers, int64_t widest, int samples) { return (numbers + 2 * widest + 64) * samples; }

template <class T> void all_samples(const Problem<T>& p, void* workspace, int threads) {
    int samples = tile(p.N, threads);
    auto& walks = chosen<T>();
    parallel((p.N + samples - 1) / samples, threads, [&](int64_t task, int t) {
        T* z = aligned<T>(workspace, t * task_numbers(p.numbers, p.widest, samples));
        walks.samples(p, task * samples, int(std::min<int64_t>(samples, p.N - task * samples)), z);
    });
}

}    // namespace

// Bytes of the workspace. dtype: 0 float32, 3 float64; numbers: of all streams, a sample; widest: outputs of a layer
extern "C" int64_t pixelcnn_sample_cpu_workspace(int dtype, int64_t N, int64_t numbers, int64_t widest, int threads) {
    return threads * task_numbers(numbers, widest, tile(N, threads)) * (dtype == 0 ? 4 : 8) + 64;
}

// x[:, known:] drawn with u, and the logits (N, D, F). Returns 0, or 1 for a bad argument.
extern "C" int pixelcnn_sample_cpu(int dtype, const void* u, void* x, const void* y, const void* streams, const void* layers, const void* taps,
                                   const void* weights, const void* biases, void* logits, void* workspace, int64_t known, int64_t N, int64_t H,
                                   int64_t W, int64_t C, int64_t L, int64_t K, int64_t count, int64_t numbers, int64_t widest,
                                   int64_t bias_columns, int threads) {
    if ((dtype != 0 && dtype != 3) || N < 0 || L < 2 || K < 0 || C < 1 || threads < 1) return 1;
    auto walk = [&](auto zero) {
        using T = decltype(zero);
        Problem<T> p = {(const T*)u, (int64_t*)x, (const int64_t*)y, (const Stream*)streams, (const Layer*)layers, (const Tap*)taps,
                        (const T*)weights, (const T*)biases, (T*)logits, (T*)workspace, known, N, H, W, C, L, K, count, numbers, widest, bias_columns};
        all_samples(p, workspace, threads);
    };
    dtype == 0 ? walk(float()) : walk(double());
    return 0;
}
