// Drives csrc/group_norm_silu.cpp, the CPU's own group norm with silu, with one thread and with three, on every
// instruction set that this processor has.
#include <cmath>
#include "driver.h"

extern "C" int group_norm_silu_cpu(int dtype, const void* x, const void* gamma, const void* beta, const void* scale,
                                   const void* shift, void* y, void* stats, double eps, int64_t N, int64_t C,
                                   int64_t P, int64_t G, int threads);
extern "C" int group_norm_silu_backward_cpu(int dtype, const void* dy, const void* x, const void* gamma,
                                            const void* beta, const void* scale, const void* shift, const void* stats,
                                            void* dx, void* dgamma, void* dbeta, void* dscale, void* dshift, int64_t N,
                                            int64_t C, int64_t P, int64_t G, int threads);

namespace {

template <class T>
void drive(int dtype, const std::string& type, double precision, const int64_t* shape, int threads, bool modulated) {
    const int64_t N = shape[0], C = shape[1], P = shape[2], G = shape[3], M = C / G, R = M * P;
    std::string what = type + ", " + std::to_string(threads) + " threads" + (modulated ? ", modulated" : "");
    Array<T> x(N * C * P), dy(N * C * P), y(N * C * P), dx(N * C * P), gamma(C), beta(C), dgamma(C), dbeta(C);
    Array<T> scale(modulated ? N * C : 0), shift(modulated ? N * C : 0), dscale(N * C), dshift(N * C), stats(N * G * 3);
    fill(x, 4), fill(dy), fill(gamma), fill(beta), fill(scale), fill(shift);
    const void *s = modulated ? scale.p : nullptr, *b = modulated ? shift.p : nullptr;
    const double eps = 0x1p-7;
    run(what, group_norm_silu_cpu(dtype, x.p, gamma.p, beta.p, s, b, y.p, stats.p, eps, N, C, P, G, threads));
    run(what, group_norm_silu_backward_cpu(dtype, dy.p, x.p, gamma.p, beta.p, s, b, stats.p, dx.p, dgamma.p, dbeta.p,
                                           dscale.p, dshift.p, N, C, P, G, threads));
    std::vector<double> sum_gamma(C), sum_beta(C), dz(R), z(R);
    const double off = 1024 * precision;    // sums of up to 2100 numbers up to 4, and r up to 11
    for (int64_t ng = 0; ng < N * G; ng++) {
        const int64_t n = ng / G;
        double mean = 0, variance = 0, c1 = 0, c2 = 0;
        for (int64_t i = 0; i < R; i++) mean += double(x[ng * R + i]) / R;
        for (int64_t i = 0; i < R; i++) variance += std::pow(double(x[ng * R + i]) - mean, 2) / R;
        const double r = 1 / std::sqrt(variance + eps);
        for (int64_t m = 0; m < M; m++) {
            const int64_t c = ng % G * M + m, nc = n * C + c;
            double one_s = 1 + (modulated ? double(scale[nc]) : 0), A = 0, B = 0;
            for (int64_t p = 0; p < P; p++) {
                const int64_t i = m * P + p, at = ng * R + i;
                z[i] = (double(x[at]) - mean) * r;
                double u = one_s * (double(gamma[c]) * z[i] + double(beta[c])) + (modulated ? double(shift[nc]) : 0);
                double sigma = 1 / (1 + std::exp(-u)), du = double(dy[at]) * sigma * (1 + u * (1 - sigma));
                expect(what + ", y", at, double(y[at]), u * sigma, off);
                A += du * z[i], B += du, dz[i] = one_s * double(gamma[c]) * du;
                c1 += dz[i] / R, c2 += dz[i] * z[i] / R;
            }
            sum_gamma[c] += one_s * A, sum_beta[c] += one_s * B;
            expect(what + ", dscale", nc, double(dscale[nc]), double(gamma[c]) * A + double(beta[c]) * B, off);
            expect(what + ", dshift", nc, double(dshift[nc]), B, off);
        }
        for (int64_t i = 0; i < R; i++)
            expect(what + ", dx", ng * R + i, double(dx[ng * R + i]), r * (dz[i] - c1 - z[i] * c2), off);
    }
    for (int64_t c = 0; c < C; c++) {
        expect(what + ", dgamma", c, double(dgamma[c]), sum_gamma[c], off);
        expect(what + ", dbeta", c, double(dbeta[c]), sum_beta[c], off);
    }
}
}    // namespace

int main() {
    // N, C, P, G
    const int64_t shapes[][4] = {{0, 4, 3, 2}, {2, 4, 0, 2}, {3, 4, 1, 4},     // no image, no pixel, one number a group
                                 {3, 6, 5, 3},
                                 {2, 8, 16, 1},
                                 {2, 4, 65, 2},    // around 4 to 16 lanes
                                 {5, 130, 2, 2},
                                 {1, 2, 1030, 1},
                                 {40, 8, 49, 1}};    // beyond a task and a block
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (auto& shape : shapes)
            for (int threads : {1, 3})
                for (bool modulated : {false, true}) {
                    drive<float>(0, std::string(set) + " float32", 0x1p-23, shape, threads, modulated);
                    drive<double>(3, std::string(set) + " float64", 0x1p-50, shape, threads, modulated);
                }
    }
    stop(0, "group_norm_silu_cpu: all right");
}
