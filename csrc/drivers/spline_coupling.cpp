// Drives csrc/spline_coupling.cu: both rungs, forward, inverse and both gradients, four dtypes, around every edge.
#include "spline_coupling_walk.h"
namespace {
#include "../spline_coupling.cu"
}    // namespace

int main() {
    each_dtype([&](auto zero, int dtype, const std::string& name, double precision) {
        using T = decltype(zero);
        using R = real<T>;
        for (auto& shape : SHAPES)
            for (bool staged : {false, true}) {
                const int64_t N = shape[0], D = shape[1], K = shape[2];
                Array<R> slopes(N * D);
                auto forward = staged ? spline_coupling_staged : spline_coupling_naive;
                auto backward = staged ? spline_coupling_backward_staged : spline_coupling_backward_naive;
                walk<T, R>(
                    name + (staged ? " staged" : " naive"), precision, N, D, K,
                    [&](auto& x, auto& w, auto& y, auto& logdet, bool inverse) {
                        return forward(dtype, inverse, x.p, w.p, y.p, logdet.p, slopes.p, BOUND, LEAST, shift(), N, D,
                                       K, nullptr);
                    },
                    [&](auto& dy, auto& dlogdet, auto& x, auto& w, auto& dx, auto& dw, bool inverse) {
                        return backward(dtype, inverse, dy.p, dlogdet.p, x.p, w.p, dx.p, dw.p, BOUND, LEAST, shift(),
                                        N, D, K, nullptr);
                    });
            }
    });
    stop(0, "spline_coupling: all right");
}
