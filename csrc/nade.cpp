// NADE on a CPU: logits and samples row by row, the gradient tile of hidden units by tile.   Room: kernels/nade.py
//
// The pass: up to ROWS rows are one task; they share the loads of V_d and W_d, and keep a_d and h_d = sigma(a_d) in the
// nearest cache. A pixel of 0 changes neither, so its sigmoids, which are most of the work, are not computed again.
// The gradient: nothing flows between hidden units on the way back, so a task is a few vectors of units, for all rows.
// Which task computes what changes no result: every sum has the order that csrc/cpu/nade_lanes.h writes, whatever the
// number of threads.

#include "cpu/cpu.h"

namespace {

constexpr int ROWS = 16;     // of a task of the pass
constexpr int GROUP = 32;    // rows of the gradient that are added in the nearest cache
constexpr int CHUNK = 32;    // pixels between two marks of the gradient
constexpr int WIDEST = 4;    // vectors of a task of the gradient

// Whole vectors of every width; an odd number of cache lines, so that rows spread over the cache
template <class T> constexpr int64_t padded(int64_t H) { return (H + 15) / 32 * 32 + 16; }

template <class T> struct Pass {
    const T* u;         // (N, D), or null if all pixels are known
    uint8_t* x;         // (N, D): x[:, :known] is read, the rest is written
    int64_t known;
    const T *W, *V, *b, *c;    // W transposed: (D, H) as V
    T* logits;          // (N, D)
    int64_t N, D, H;
};

template <class T> struct Gradient {
    const T* dl;        // (N, D)
    const uint8_t* x;
    const T *W, *V, *c;
    T *dW, *dV, *dc;    // (D, H), (D, H), (H)
    int64_t N, D, H;
};

template <class T> struct Walks {
    int lanes;
    void (*pass)(const Pass<T>&, int64_t, int64_t, T*, T*);
    void (*units)(const Gradient<T>&, int64_t, int, T*);
};

#define LANES_OF "nade_lanes.h"
#include "cpu/lanes.h"

template <class T> int64_t pass_numbers(int64_t H) { return 2 * ROWS * padded<T>(H); }
template <class T> int64_t gradient_numbers(int64_t D) {
    return (GROUP * (2 + (D + CHUNK - 1) / CHUNK) + 3 * CHUNK + 1) * WIDEST * int64_t(64 / sizeof(T));
}

template <class T> void run_pass(const Pass<T>& p, void* workspace, int threads) {
    int64_t tasks = std::max<int64_t>((p.N + ROWS - 1) / ROWS, std::min<int64_t>(threads, p.N));
    if (p.N > 4 * threads) tasks = (tasks + threads - 1) / threads * threads;    // as many for each thread
    auto& walks = chosen<T>();
    parallel(tasks, threads, [&](int64_t task, int t) {
        T* a = aligned<T>(workspace, t * pass_numbers<T>(p.H));
        walks.pass(p, task * p.N / tasks, (task + 1) * p.N / tasks, a, a + ROWS * padded<T>(p.H));
    });
}

template <class T> void run_gradient(const Gradient<T>& g, void* workspace, int threads) {
    auto& walks = chosen<T>();
    int64_t vectors = (g.H + walks.lanes - 1) / walks.lanes;
    int width = int(std::clamp<int64_t>((vectors + threads - 1) / threads, 1, WIDEST));
    parallel((vectors + width - 1) / width, threads, [&](int64_t tile, int t) {
        walks.units(g, tile, width, aligned<T>(workspace, t * gradient_numbers<T>(g.D)));
    });
}

}    // namespace

// Bytes of the workspace of nade_cpu and of nade_backward_cpu. dtype: 0 float32, 3 float64
extern "C" int64_t nade_cpu_workspace(int dtype, int64_t D, int64_t H, int threads) {
    int64_t single = std::max(pass_numbers<float>(H), gradient_numbers<float>(D));
    int64_t wide = std::max(pass_numbers<double>(H), gradient_numbers<double>(D));
    return threads * (dtype == 0 ? single * 4 : wide * 8) + 64;
}

// logits (N, D), and x[:, known:] drawn with u (null if known = D). W is transposed, (D, H). Returns 0, or 1 for a bad
// argument.
extern "C" int nade_cpu(int dtype, const void* u, void* x, int64_t known, const void* W, const void* V, const void* b,
                        const void* c, void* logits, void* workspace, int64_t N, int64_t D, int64_t H, int threads) {
    if ((dtype != 0 && dtype != 3) || N < 0 || D < 0 || H < 0 || threads < 1 || known < 0 || known > D) return 1;
    auto run = [&](auto zero) {
        using T = decltype(zero);
        Pass<T> p = {(const T*)u, (uint8_t*)x, known, (const T*)W, (const T*)V, (const T*)b, (const T*)c, (T*)logits,
                     N, D, H};
        run_pass(p, workspace, threads);
    };
    dtype == 0 ? run(float()) : run(double());
    return 0;
}

// dW (transposed, (D, H)), dV (D, H), dc (H) from dl (N, D)
extern "C" int nade_backward_cpu(int dtype, const void* dl, const void* x, const void* W, const void* V, const void* c,
                                 void* dW, void* dV, void* dc, void* workspace, int64_t N, int64_t D, int64_t H,
                                 int threads) {
    if ((dtype != 0 && dtype != 3) || N < 0 || D < 0 || H < 0 || threads < 1) return 1;
    auto run = [&](auto zero) {
        using T = decltype(zero);
        Gradient<T> g = {
            (const T*)dl, (const uint8_t*)x, (const T*)W, (const T*)V, (const T*)c, (T*)dW, (T*)dV, (T*)dc, N, D, H};
        run_gradient(g, workspace, threads);
    };
    dtype == 0 ? run(float()) : run(double());
    return 0;
}
