// Drives csrc/ddim_step.cpp, the CPU's own step of a sampler, with one thread and with three, on every instruction set
// that this processor has.
#include <algorithm>
#include "driver.h"
#include "noise_walk.h"

extern "C" int ddim_step_cpu(int dtype, const void* x, const void* output, const void* unconditional, const void* noise,
                             const void* seed, void* x_s, void* work, double w, double p, double q, double a, double k,
                             double c, int64_t threshold, int64_t rank, int64_t N, int64_t D, int threads);

namespace {

enum Threshold { NONE,
                 STATIC,
                 DYNAMIC };

// no noise, noise that is given, noise of a seed
enum Noise { STILL,
             GIVEN,
             SEEDED };

template <class T>
void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D, int threads, Threshold threshold,
           Noise noise, bool guided) {
    std::string what = type + ", " + std::to_string(threads) + " threads, threshold " + std::to_string(threshold);
    Array<T> x(N * D), o(N * D), u(guided ? N * D : 0), eps(noise == GIVEN ? N * D : 0), x_s(N * D);
    Array<T> work(threshold == DYNAMIC ? threads * D : 0);
    Array<uint64_t> seed(1);
    fill(x), fill(o, 2), fill(u, 2), fill(eps);
    seed[0] = 0x123456789abcdef;
    double w = 1.5, p = 1.25, q = -0.75, a = 0.5, k = 0.75, c = noise == STILL ? 0 : 0.25;    // exact in float
    int64_t rank = (D - 1) * 7 / 8;
    run(what, ddim_step_cpu(dtype, x.p, o.p, guided ? u.p : nullptr, noise == GIVEN ? eps.p : nullptr,
                            noise == SEEDED ? seed.p : nullptr, x_s.p, work.p, w, p, q, a, k, c, threshold, rank, N, D,
                            threads));
    for (int64_t n = 0; n < N; n++) {
        std::vector<double> x0(D), size(D);
        for (int64_t d = 0; d < D; d++) {
            int64_t i = n * D + d;
            double out = guided ? double(u[i]) + w * (double(o[i]) - double(u[i])) : double(o[i]);
            x0[d] = p * double(x[i]) + q * out, size[d] = fabs(x0[d]);
        }
        std::sort(size.begin(), size.end());
        double s = threshold == DYNAMIC && D && size[rank] > 1 ? size[rank] : 1;
        for (int64_t d = 0; d < D; d++) {
            int64_t i = n * D + d;
            if (threshold != NONE) x0[d] = fmin(fmax(x0[d], -s), s) / s;
            double e = noise == GIVEN ? double(eps[i]) : 0;
            if (noise == SEEDED) e = normal_of(seed[0], n, d);
            double off = 3e-6 * (noise == SEEDED) + 32 * precision;
            expect(what, i, double(x_s[i]), a * x0[d] + k * double(x[i]) + c * e, off);
        }
    }
}
}    // namespace

int main() {
    // Around 4 to 16 lanes, 4 numbers a counter, parts of 4096 numbers
    const int64_t shapes[][2] = {{0, 3}, {3, 0}, {1, 1}, {5, 3}, {8, 64}, {3, 65}, {130, 33}, {2, 4097}, {1, 8200}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (auto& s : shapes)
            for (int threads : {1, 3})
                for (Threshold threshold : {NONE, STATIC, DYNAMIC})
                    for (Noise noise : {STILL, GIVEN, SEEDED}) {
                        std::string name(set);
                        bool guided = (threshold + noise + threads) % 2;
                        drive<float>(0, name + " float32", 0x1p-23, s[0], s[1], threads, threshold, noise, guided);
                        drive<double>(3, name + " float64", 0x1p-50, s[0], s[1], threads, threshold, noise, !guided);
                    }
    }
    stop(0, "ddim_step_cpu: all right");
}
