// Drives csrc/info_nce.cpp, the CPU's own contrastive loss, with one thread and with three, on every instruction set
// that this processor has.
#include <cmath>
#include "driver.h"

extern "C" int64_t info_nce_cpu_workspace(int dtype, int64_t N, int64_t D, int threads);
extern "C" int64_t info_nce_backward_cpu_workspace(int dtype, int64_t N, int64_t D, int threads);
extern "C" int info_nce_cpu(int dtype, const void* a, const void* b, const void* scale, void* loss, void* stats,
                            void* workspace, int64_t N, int64_t D, int threads);
extern "C" int info_nce_backward_cpu(int dtype, const void* dloss, const void* a, const void* b, const void* scale,
                                     const void* stats, void* da, void* db, void* dscale, void* workspace, int64_t N,
                                     int64_t D, int threads);

namespace {

template <class T>
void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D, int threads) {
    std::string what = type + ", " + std::to_string(threads) + " threads, N = " + std::to_string(N);
    Array<T> a(N * D), b(N * D), g(N), loss(N), stats(4 * N), da(N * D), db(N * D), scale(1), dscale(1);
    Array<char> workspace(info_nce_cpu_workspace(dtype, N, D, threads));
    Array<char> of_backward(info_nce_backward_cpu_workspace(dtype, N, D, threads));
    fill(a), fill(b), fill(g);
    scale[0] = T(1.5);
    run(what, info_nce_cpu(dtype, a.p, b.p, scale.p, loss.p, stats.p, workspace.p, N, D, threads));
    memset(of_backward.p, 0xff, of_backward.n);
    run(what, info_nce_backward_cpu(dtype, g.p, a.p, b.p, scale.p, stats.p, da.p, db.p, dscale.p, of_backward.p, N, D,
                                    threads));
    // l up to 1.5 D; sums of up to N numbers, each off by some roundings of l
    const double c = double(scale[0]), off = 64 * precision * double(D + 1);
    std::vector<double> x(N * N), r(N), s(N), want_a(N * D), want_b(N * D);
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < N; m++) {
            for (int64_t d = 0; d < D; d++) x[n * N + m] += double(a[n * D + d]) * double(b[m * D + d]);
            r[n] += std::exp(c * x[n * N + m]), s[m] += std::exp(c * x[n * N + m]);
        }
    double sum = 0;
    for (int64_t n = 0; n < N; n++) {
        expect(what + ", loss", n, double(loss[n]), (std::log(r[n]) + std::log(s[n])) / 2 - c * x[n * N + n], off);
        for (int64_t m = 0; m < N; m++) {
            const double e = std::exp(c * x[n * N + m]);
            const double dl = (double(g[n]) * e / r[n] + double(g[m]) * e / s[m]) / 2 - (n == m ? double(g[n]) : 0);
            sum += dl * x[n * N + m];
            for (int64_t d = 0; d < D; d++) {
                want_a[n * D + d] += c * dl * double(b[m * D + d]);
                want_b[m * D + d] += c * dl * double(a[n * D + d]);
            }
        }
    }
    for (int64_t i = 0; i < N * D; i++) {
        expect(what + ", da", i, double(da[i]), want_a[i], off);
        expect(what + ", db", i, double(db[i]), want_b[i], off);
    }
    expect(what + ", dscale", 0, double(dscale[0]), sum, off * double(N + 1));
}
}    // namespace

int main() {
    // no pair, no dimension, around vectors, tiles, blocks and a slab
    const int64_t shapes[][2] = {{0, 3}, {3, 0}, {1, 1}, {2, 7}, {31, 5}, {64, 64}, {65, 33}, {131, 70}, {300, 9}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (auto& shape : shapes)
            for (int threads : {1, 3}) {
                drive<float>(0, std::string(set) + " float32", 0x1p-23, shape[0], shape[1], threads);
                drive<double>(3, std::string(set) + " float64", 0x1p-50, shape[0], shape[1], threads);
            }
    }
    stop(0, "info_nce_cpu: all right");
}
