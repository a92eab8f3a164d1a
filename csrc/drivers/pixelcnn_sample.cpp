// Drives csrc/pixelcnn_sample.cu: both rungs; colours, levels and logistics, drawn and known numbers, more outputs than threads.
#include "pixelcnn_sample_net.h"
namespace {
#include "../pixelcnn_sample.cu"

template <class T> void drive(int dtype, const std::string& type, double precision, const int64_t (&s)[8], bool naive) {
    Net<T> e(type + (naive ? " naive" : " groups"), s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    Array<T> z(e.N * (e.numbers + e.widest));
    auto walk = naive ? pixelcnn_sample_naive : pixelcnn_sample_groups;
    run(e.what, walk(dtype, e.u.p, e.x.p, e.y.p, e.tables.p, e.tables.p + 100, e.tables.p + 200, e.weights.p, e.biases.p, e.logits.p, z.p, e.known,
                     e.N, e.H, e.W, e.C, e.L, e.K, int64_t(e.layers.size()), e.numbers, e.widest, e.bias_columns, nullptr));
    e.check(precision);
}
}    // namespace

int main() {
    const int64_t shapes[][8] = {{0, 2, 2, 1, 2, 0, 3, 0}, {2, 1, 1, 1, 2, 0, 1, 0}, {2, 3, 2, 1, 2, 0, 5, 3}, {1, 2, 2, 2, 5, 0, 2, 0}, {1, 2, 1, 3, 4, 2, 1, 1}, {1, 1, 2, 1, 260, 0, 1, 2}};
    for (auto& s : shapes)
        for (bool naive : {true, false}) {
            if (SLOW && s[4] > 2) continue;
            drive<float>(0, "float32", 0x1p-23, s, naive);
            if (!SLOW) drive<double>(3, "float64", 0x1p-50, s, naive);
        }
    stop(0, "pixelcnn_sample: all right");
}
