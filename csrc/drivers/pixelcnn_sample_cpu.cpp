// Drives csrc/pixelcnn_sample.cpp, the CPU's own sampler, with one thread and with three, on every instruction set that this processor has.
#include <algorithm>
#include <atomic>
#include <cfenv>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "../cpu/threads.h"
#include "pixelcnn_sample_net.h"
namespace {
#include "../pixelcnn_sample.cpp"

template <class T> void drive(int dtype, const std::string& type, double precision, const int64_t (&s)[8], int threads) {
    Net<T> e(type + ", " + std::to_string(threads) + " threads", s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    Array<char> work(pixelcnn_sample_cpu_workspace(dtype, e.N, e.numbers, e.widest, threads));
    run(e.what, pixelcnn_sample_cpu(dtype, e.u.p, e.x.p, e.y.p, e.tables.p, e.tables.p + 100, e.tables.p + 200, e.weights.p, e.biases.p, e.logits.p,
                                    work.p, e.known, e.N, e.H, e.W, e.C, e.L, e.K, int64_t(e.layers.size()), e.numbers, e.widest, e.bias_columns,
                                    threads));
    e.check(precision);
}
}    // namespace

int main() {
    // Around 2 to 16 lanes, 1 and 2 and 4 vectors of outputs, 1 to 8 samples a task
    const int64_t shapes[][8] = {{0, 2, 2, 1, 2, 0, 3, 0}, {1, 1, 1, 1, 2, 0, 1, 0}, {5, 3, 4, 1, 2, 0, 9, 3}, {13, 2, 2, 2, 5, 0, 8, 0}, {8, 2, 2, 3, 4, 2, 3, 7}, {3, 1, 2, 1, 40, 0, 33, 2}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (auto& s : shapes)
            for (int threads : {1, 3}) {
                drive<float>(0, std::string(set) + " float32", 0x1p-23, s, threads);
                drive<double>(3, std::string(set) + " float64", 0x1p-50, s, threads);
            }
    }
    stop(0, "pixelcnn_sample_cpu: all right");
}
