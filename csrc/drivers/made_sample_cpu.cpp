// Drives csrc/made_sample.cpp, the CPU's own sampler, with one thread and with three, on every instruction set that
// this processor has.
#include "made_sample_net.h"

extern "C" int64_t made_sample_cpu_workspace(int dtype, const void* sizes, int threads);
extern "C" int made_sample_cpu(int dtype, const void* sizes, const void* layers, const void* u, void* x, void* ends,
                               void* logits, void* workspace, int threads);

namespace {

template <class T> void drive(int dtype, const std::string& type, double precision, const int64_t (&s)[5],
                              int threads) {
    Net<T> net(type + ", " + std::to_string(threads) + " threads", s[0], s[1], s[2], s[3], s[4]);
    Sizes sizes = net.sizes();
    Array<char> work(made_sample_cpu_workspace(dtype, &sizes, threads));
    run(net.what, made_sample_cpu(dtype, &sizes, net.layers, net.u.p, net.x.p, net.ends.p, net.logits.p, work.p,
                                  threads));
    net.check(precision);
}
}    // namespace

int main() {
    // Around 2 to 16 lanes, 1 to 4 vectors a task, 4 rows at a time
    const int64_t shapes[][5] = {{0, 3, 2, 5, 0}, {1, 0, 2, 4, 0}, {1, 1, 2, 1, 0},    // sizes 0 and 1
                                 {3, 5, 2, 11, 2},
                                 {17, 3, 4, 33, 0},
                                 {33, 2, 2, 40, 2},
                                 {50, 3, 3, 5, 1},
                                 {70, 2, 2, 9, 0},
                                 {150, 4, 5, 6, 1}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (auto& s : shapes)
            for (int threads : {1, 3}) {
                drive<float>(0, std::string(set) + " float32", 0x1p-23, s, threads);
                drive<double>(3, std::string(set) + " float64", 0x1p-50, s, threads);
            }
    }
    stop(0, "made_sample_cpu: all right");
}
