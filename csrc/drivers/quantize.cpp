// Drives csrc/quantize.cu: the step and its two gradients, both rungs, all sixteen pairs of dtypes; indices out of
// range.
#include <algorithm>
#include <numeric>
#include "driver.h"
namespace {
#include "../quantize.cu"

template <class Z, class E> void drive(int z_dtype, int e_dtype, double z_precision, double e_precision, int64_t N,
                                       int64_t K, int64_t D, bool naive) {
    using R = real<Z, E>;
    const double beta = 0.25, R_precision = sizeof(R) == 4 ? 0x1p-22 : 0x1p-48;
    std::string what = "dtypes " + std::to_string(z_dtype) + " " + std::to_string(e_dtype) + ", ";
    what += std::to_string(N) + "x" + std::to_string(D) + (naive ? " naive" : " fused");
    Array<Z> z(N * D), z_q(N * D), dz_q(N * D), dz(N * D);
    Array<E> e(K * D), de(K * D);
    Array<R> loss(N), dloss(N);
    Array<int64_t> index(N), order(N), start(K + 1);
    fill(z, 3), fill(e, 3), fill(dz_q), fill(dloss);
    for (int64_t n = 0; n < N; n++) index[n] = int64_t((uniform() + 1) / 2 * K);
    for (int64_t n = 10; n < N; n += 11) index[n] = n % 2 ? -1 : K;    // reads no code and adds nothing
    auto inside = [&](int64_t n) { return index[n] >= 0 && index[n] < K; };
    std::iota(order.p, order.p + N, 0);
    std::stable_sort(order.p, order.p + N, [&](int64_t a, int64_t b) { return index[a] < index[b]; });
    for (int64_t k = 0; k <= K; k++) start[k] = std::count_if(index.p, index.p + N, [&](int64_t i) { return i < k; });
    auto code = [&](int64_t n, int64_t d) { return inside(n) ? to_double(e[index[n] * D + d]) : 0; };
    auto difference = [&](int64_t n, int64_t d) { return inside(n) ? to_double(z[n * D + d]) - code(n, d) : 0; };

    auto forward = naive ? quantize_forward_naive : quantize_forward_fused;
    run(what, forward(z_dtype, e_dtype, z.p, e.p, index.p, z_q.p, loss.p, beta, N, K, D, nullptr));
    run(what, quantize_dz(z_dtype, e_dtype, dz_q.p, dloss.p, z.p, e.p, index.p, dz.p, beta, N, K, D, nullptr));
    if (naive) run(what, quantize_de_naive(z_dtype, e_dtype, dloss.p, z.p, e.p, index.p, de.p, N, K, D, nullptr));
    else run(what, quantize_de_fused(z_dtype, e_dtype, dloss.p, z.p, e.p, order.p, start.p, de.p, K, D, nullptr));
    for (int64_t n = 0; n < N; n++) {
        double square = 0;
        for (int64_t d = 0; d < D; d++) {
            int64_t i = n * D + d;
            double pull = 2 * beta * difference(n, d) * dloss[n];
            square += difference(n, d) * difference(n, d);
            expect(what + " z_q", i, to_double(z_q[i]), code(n, d), z_precision * fabs(code(n, d)) + 0x1p-24);
            expect(what + " dz", i, to_double(dz[i]), to_double(dz_q[i]) + pull, 2 * z_precision * (1 + fabs(pull)));
        }
        expect(what + " loss", n, loss[n], (1 + beta) * square, R_precision * square);
    }
    for (int64_t i = 0; i < K * D; i++) {
        double push = 0, size = 1;
        for (int64_t n = 0; n < N; n++)
            if (index[n] == i / D)
                push -= 2 * difference(n, i % D) * dloss[n], size += fabs(2 * difference(n, i % D) * dloss[n]);
        expect(what + " de", i, to_double(de[i]), push, 2 * (e_precision + R_precision) * size);
    }
}
}    // namespace

int main() {
    const int64_t shapes[][3] = {{0, 2, 3}, {1, 1, 1}, {19, 5, 7}, {70, 3, 40}};
    each_dtype([&](auto z, int z_dtype, const std::string&, double z_precision) {
        each_dtype([&](auto e, int e_dtype, const std::string&, double e_precision) {
            if (SLOW && z_dtype != e_dtype) return;
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
