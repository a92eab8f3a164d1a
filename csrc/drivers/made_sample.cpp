// Drives csrc/made_sample.cu: both rungs, drawn and known pixels; samples around tiles of 1 to 8, units around 4 and
// around the warps.
#include "made_sample_net.h"
namespace {
#include "../made_sample.cu"

template <class T> void drive(int dtype, const std::string& type, double precision, const int64_t (&s)[5], bool naive) {
    Net<T> net(type + (naive ? " naive" : " tiles"), s[0], s[1], s[2], s[3], s[4]);
    Sizes sizes = net.sizes();
    Array<T> z(net.N * sizes.units);
    auto walk = naive ? made_sample_naive : made_sample_tiles;
    run(net.what, walk(dtype, &sizes, net.layers, net.u.p, net.x.p, net.ends.p, net.logits.p, z.p, nullptr));
    net.check(precision);
}
}    // namespace

int main() {
    const int64_t shapes[][5] = {{0, 3, 2, 5, 0}, {1, 0, 2, 4, 0}, {1, 1, 2, 1, 0},    // sizes 0 and 1
                                 {3, 4, 2, 9, 2},
                                 {2, 2, 4, 33, 0},
                                 {1, 1, 2, 270, 1},
                                 {130, 1, 3, 2, 0},
                                 {514, 1, 2, 2, 0}};
    for (auto& s : shapes)
        for (bool naive : {true, false}) {
            if (s[0] > 10 && naive) continue;
            drive<float>(0, "float32", 0x1p-23, s, naive);
            if (s[0] < 10 && s[3] < 100) drive<double>(3, "float64", 0x1p-50, s, naive);
        }
    stop(0, "made_sample: all right");
}
