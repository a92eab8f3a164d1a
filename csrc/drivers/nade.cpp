// Drives csrc/nade.cu: both rungs, the pass with known and with drawn pixels, the gradient; rows, units and chunks
// around every edge.
#include "nade_walk.h"
namespace {
#include "../nade.cu"

template <class T>
void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D, int64_t H, int64_t known,
           bool naive) {
    Nade<T> e(type + (naive ? " naive" : " warp_rows"), precision, N, D, H, known);
    int64_t groups = N < 16 ? 1 : 3;
    Array<T> a(N * H), work(naive ? D * H : groups * (2 * D + 1) * H);
    auto pass = naive ? nade_naive : nade_warp_rows;
    run(e.what, pass(dtype, known < D ? e.u.p : nullptr, e.x.p, known, e.W.p, e.V.p, e.b.p, e.c.p, e.logits.p, a.p, N,
                     D, H, nullptr));
    auto backward = naive ? nade_backward_naive : nade_backward_warp_rows;
    if (N > 0)    // without rows the launcher in Python returns zeros
        run(e.what, backward(dtype, e.dl.p, e.x.p, e.W.p, e.V.p, e.c.p, e.dW.p, e.dV.p, e.dc.p, work.p, groups, N, D, H,
                             nullptr));
    e.check(N > 0, 0);
}
}    // namespace

int main() {
    const int64_t shapes[][4] = {{0, 3, 5, 3}, {1, 0, 4, 0}, {1, 1, 1, 0}, {2, 3, 0, 1},    // sizes 0 and 1
                                 {5, 9, 31, 9},
                                 {6, 17, 33, 4},
                                 {19, 12, 40, 0},
                                 {2, 5, 1030, 2}};
    for (auto& s : shapes)
        for (bool naive : {true, false}) {
            drive<float>(0, "float32", 0x1p-23, s[0], s[1], s[2], s[3], naive);
            drive<double>(3, "float64", 0x1p-50, s[0], s[1], s[2], s[3], naive);
        }
    stop(0, "nade: all right");
}
