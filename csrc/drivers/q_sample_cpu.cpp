// Drives csrc/q_sample.cpp, the CPU's own forward process, with one thread and with three, on every instruction set
// that this processor has.
#include "../cpu/noise.h"
#include "driver.h"
#include "noise_walk.h"

extern "C" int q_sample_cpu(int dtype, const void* x0, const void* t, const void* alpha, const void* sigma,
                            const void* eps, const void* seed, void* x_t, void* y, int64_t target, int64_t N, int64_t D,
                            int64_t T, int threads);

namespace {

enum Target { NONE,
              EPS,
              V };

constexpr int64_t TIMES = 5;

template <class T>
void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D, int threads, Target target,
           bool seeded) {
    std::string what = type + ", " + std::to_string(threads) + " threads, target " + std::to_string(target);
    Array<T> x0(N * D), eps(seeded ? 0 : N * D), x_t(N * D), y(target == NONE ? 0 : N * D);
    Array<double> alpha(TIMES), sigma(TIMES);
    Array<int64_t> t(N);
    Array<uint64_t> seed(1);
    fill(x0), fill(eps, 3), fill(alpha), fill(sigma);
    seed[0] = 0x123456789abcdef;
    for (int64_t n = 0; n < N; n++) t[n] = n % (TIMES + 2) - 1;    // -1 and TIMES lie outside
    run(what, q_sample_cpu(dtype, x0.p, t.p, alpha.p, sigma.p, seeded ? nullptr : eps.p, seeded ? seed.p : nullptr,
                           x_t.p,
                           y.p, target, N, D, TIMES, threads));
    for (int64_t n = 0; n < N; n++)
        for (int64_t d = 0; d < D; d++) {
            int64_t i = n * D + d;
            bool known = t[n] >= 0 && t[n] < TIMES;
            double a = known ? alpha[t[n]] : 0, s = known ? sigma[t[n]] : 0, x = double(x0[i]);
            double e = seeded ? normal_of(seed[0], n, d) : double(eps[i]), off = (seeded ? 3e-6 : 0) + 8 * precision;
            expect(what + ", x_t", i, double(x_t[i]), a * x + s * e, off);
            if (target != NONE) expect(what + ", y", i, double(y[i]), target == EPS ? e : a * e - s * x, off);
        }
}

// Counters whose low word begins again at 0, far along a row
void drive_far(const std::string& set) {
    const int64_t first = ((int64_t(1) << 32) - 7) * 4, many = 150;
    Array<float> out(many);
    auto draw = BEST(draw<float>);
    draw(5, 0, 1, first, first + many, first + many, out.p - first);
    for (int64_t d = 0; d < many; d++) expect(set + ", far", d, out[d], normal_of(5, 0, first + d), 4e-6);
}
}    // namespace

int main() {
    // Around 4 to 16 lanes, 4 numbers a counter, 4 to 16 counters a step, parts of 4096 numbers
    const int64_t shapes[][2] = {{0, 3}, {3, 0}, {1, 1}, {5, 3}, {8, 64}, {3, 65}, {130, 33}, {2, 4097}, {1, 8200}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        drive_far(set);
        for (auto& s : shapes)
            for (int threads : {1, 3})
                for (Target target : {NONE, EPS, V})
                    for (bool seeded : {true, false}) {
                        drive<float>(0, std::string(set) + " float32", 0x1p-23, s[0], s[1], threads, target, seeded);
                        drive<double>(3, std::string(set) + " float64", 0x1p-50, s[0], s[1], threads, target, seeded);
                    }
    }
    stop(0, "q_sample_cpu: all right");
}
