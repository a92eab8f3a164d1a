// Drives csrc/quantize.cu: the step and its two gradients, both rungs, all sixteen pairs of dtypes; indices out of
// range.
#include <algorithm>
#include <numeric>
#include "quantize_walk.h"
namespace {
#include "../quantize.cu"

template <class Z, class E> void drive(int z_dtype, int e_dtype, double z_precision, double e_precision, int64_t N,
                                       int64_t K, int64_t D, bool naive) {
    std::string what = "dtypes " + std::to_string(z_dtype) + " " + std::to_string(e_dtype) + ", ";
    what += std::to_string(N) + "x" + std::to_string(D) + (naive ? " naive" : " fused");
    Walk<Z, E, real<Z, E>> w(N, K, D);
    const int64_t* index = w.index.p;
    Array<int64_t> order(N), start(K + 1);
    std::iota(order.p, order.p + N, 0);
    std::stable_sort(order.p, order.p + N, [&](int64_t a, int64_t b) { return index[a] < index[b]; });
    for (int64_t k = 0; k <= K; k++) start[k] = std::count_if(index, index + N, [&](int64_t i) { return i < k; });

    auto forward = naive ? quantize_forward_naive : quantize_forward_fused;
    const void *z = w.z.p, *e = w.e.p, *dloss = w.dloss.p;
    run(what, forward(z_dtype, e_dtype, z, e, index, w.z_q.p, w.loss.p, w.beta, N, K, D, nullptr));
    auto dz = naive ? quantize_dz_naive : quantize_dz_fused;
    run(what, dz(z_dtype, e_dtype, w.dz_q.p, dloss, z, e, index, w.dz.p, w.beta, N, K, D, nullptr));
    if (naive) run(what, quantize_de_naive(z_dtype, e_dtype, dloss, z, e, index, w.de.p, N, K, D, nullptr));
    else run(what, quantize_de_fused(z_dtype, e_dtype, dloss, z, e, order.p, start.p, w.de.p, K, D, nullptr));
    w.expect_all(what, z_precision, e_precision);
}
}    // namespace

int main() {
    const int64_t shapes[][3] = {{0, 2, 3}, {1, 1, 1}, {19, 5, 7}, {70, 3, 40}, {9, 2, 264}};
    each_dtype([&](auto z, int z_dtype, const std::string&, double z_precision) {
        each_dtype([&](auto e, int e_dtype, const std::string&, double e_precision) {
            for (auto& s : shapes)
                for (bool naive : {true, false}) {
                    using Z = decltype(z);
                    using E = decltype(e);
                    drive<Z, E>(z_dtype, e_dtype, z_precision, e_precision, s[0], s[1], s[2], naive);
                }
        });
    });
    stop(0, "quantize: all right");
}
