// Drives csrc/pixelcnn_sample.cpp, the native kernel, with one thread and with three, on every instruction set that
// this processor has.
#include "pixelcnn_sample_net.h"

extern "C" int64_t pixelcnn_sample_cpu_workspace(int dtype, const void* sizes, int threads);
extern "C" int pixelcnn_sample_cpu(int dtype, const void* sizes, const void* u, void* x, const void* y, const void* E,
                                   const void* streams, const void* layers, const void* taps, const void* weights,
                                   const void* biases, void* logits, void* workspace, int threads);

namespace {

template <class T> void drive(int dtype, const std::string& type, double precision, const Case& s, int threads) {
    Net<T> e(type + ", " + std::to_string(threads) + " threads", s);
    Sizes sizes = e.sizes();
    Array<char> work(pixelcnn_sample_cpu_workspace(dtype, &sizes, threads));
    run(e.what, pixelcnn_sample_cpu(dtype, &sizes, e.u.p, e.x.p, e.y.p, e.E.p, e.stream_table.p, e.layer_table.p,
                                    e.tap_table.p, e.weights.p, e.biases.p, e.logits.p, work.p, threads));
    e.check(precision);
}
}    // namespace

int main() {
    // Around 2 to 16 lanes, 1 and 2 and 4 vectors of outputs, 1 to 8 samples a task
    const Case shapes[] = {
        {0, 2, 2, 1, 2, 0, 3, 0},
        {1, 1, 1, 1, 2, 0, 1, 0},
        {5, 3, 4, 1, 2, 0, 9, 3},
        {13, 2, 2, 2, 5, 0, 8, 0},
        {8, 2, 2, 3, 4, 2, 3, 7},
        {3, 1, 2, 1, 40, 0, 33, 2},
    };
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
