// Drives csrc/pixelcnn_sample.cu: both rungs; colours, levels and logistics, drawn and known numbers, more outputs than
// threads.
#include "pixelcnn_sample_net.h"
namespace {
#include "../pixelcnn_sample.cu"

template <class T> void drive(int dtype, const std::string& type, double precision, const Case& s, bool naive) {
    Net<T> e(type + (naive ? " naive" : " groups"), s);
    Array<T> z(s.N * (e.numbers + e.widest));
    Sizes sizes = e.sizes();
    auto walk = naive ? pixelcnn_sample_naive : pixelcnn_sample_groups;
    run(e.what, walk(dtype, &sizes, e.u.p, e.x.p, e.y.p, e.E.p, e.stream_table.p, e.layer_table.p, e.tap_table.p,
                     e.weights.p, e.biases.p, e.logits.p, z.p, nullptr));
    e.check(precision);
}
}    // namespace

int main() {
    const Case shapes[] = {
        {0, 2, 2, 1, 2, 0, 3, 0},
        {2, 1, 1, 1, 2, 0, 1, 0},
        {2, 3, 2, 1, 2, 0, 5, 3},
        {1, 2, 2, 2, 5, 0, 2, 0},
        {1, 2, 1, 3, 4, 2, 1, 1},
        {1, 1, 2, 1, 260, 0, 1, 2},
    };
    for (auto& s : shapes)
        for (bool naive : {true, false}) {
            drive<float>(0, "float32", 0x1p-23, s, naive);
            drive<double>(3, "float64", 0x1p-50, s, naive);
        }
    stop(0, "pixelcnn_sample: all right");
}
