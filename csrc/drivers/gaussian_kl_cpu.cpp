// Drives csrc/gaussian_kl.cpp, the CPU's own draw and KL and their gradient, with one thread and with three, on every
// instruction set that this processor has.
#include "driver.h"
#include "noise_walk.h"

extern "C" int64_t gaussian_kl_cpu_workspace(int64_t N, int64_t D, int threads);
extern "C" int gaussian_kl_cpu(int dtype, const void* mu, const void* l, const void* eps, const void* seed, void* z,
                               void* kl, void* sums, int64_t N, int64_t D, int threads);
extern "C" int gaussian_kl_backward_cpu(int dtype, const void* dz, const void* dkl, const void* mu, const void* l,
                                        const void* eps, const void* seed, void* dmu, void* dl, int64_t N, int64_t D,
                                        int threads);

namespace {

// r(l) = e^l - 1 - l in double, also where its terms cancel
double excess(double l) {
    if (fabs(l) > 0.1) return std::expm1(l) - l;
    double term = l * l / 2, sum = 0;
    for (int k = 3; k < 20; term *= l / k++) sum += term;
    return sum;
}

template <class T>
void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D, int threads, bool seeded) {
    std::string what = type + ", " + std::to_string(threads) + " threads" + (seeded ? ", seeded" : "");
    Array<T> mu(N * D), l(N * D), eps(seeded ? 0 : N * D), z(N * D), kl(N), dz(N * D), dkl(N), dmu(N * D), dl(N * D);
    Array<char> sums(gaussian_kl_cpu_workspace(N, D, threads));
    Array<uint64_t> seed(1);
    fill(mu), fill(l, 2), fill(eps, 3), fill(dz), fill(dkl);
    for (int64_t i = 0; i < N * D; i += 3) l[i] = T(l[i] * 1e-3);
    seed[0] = 0x123456789abcdef;
    const void *noise = seeded ? nullptr : eps.p, *from = seeded ? seed.p : nullptr;
    run(what, gaussian_kl_cpu(dtype, mu.p, l.p, noise, from, z.p, kl.p, sums.p, N, D, threads));
    run(what, gaussian_kl_backward_cpu(dtype, dz.p, dkl.p, mu.p, l.p, noise, from, dmu.p, dl.p, N, D, threads));
    for (int64_t n = 0; n < N; n++) {
        double sum = 0, size = 0;
        for (int64_t d = 0; d < D; d++) {
            int64_t i = n * D + d;
            double m = mu[i], v = l[i], e = seeded ? normal_of(seed[0], n, d) : double(eps[i]), sigma = std::exp(v / 2);
            double off = (seeded ? 3e-6 * sigma : 0) + 40 * precision, r = excess(v);
            sum += 0.5 * (m * m + r), size += m * m + std::exp(v) + 1 + fabs(v);
            expect(what + ", z", i, double(z[i]), m + sigma * e, off);
            expect(what + ", dmu", i, double(dmu[i]), dz[i] + double(dkl[n]) * m, 4 * precision);
            expect(what + ", dl", i, double(dl[i]), 0.5 * (dz[i] * sigma * e + dkl[n] * std::expm1(v)), off);
        }
        expect(what + ", kl", n, double(kl[n]), sum, 8 * precision * size);
    }
}

// Where e^(l/2) is tiny, huge, 0 or infinite, and where nothing is a number
template <class T> void drive_far(int dtype, const std::string& type) {
    const double inf = INFINITY, lines[][3] = {    // l, z of mu = 0 and eps = 1, twice the KL
                                               {-inf, 0, inf},
                                               {inf, inf, inf},
                                               {NAN, NAN, NAN},
                                               {-3000, 0, 2999},
                                               {3000, inf, inf},
                                               {0, 1, 0}};
    for (auto& line : lines) {
        Array<T> mu(1), l(1), eps(1), z(1), kl(1);
        Array<char> sums(gaussian_kl_cpu_workspace(1, 1, 1));
        mu[0] = 0, l[0] = T(line[0]), eps[0] = 1;
        run(type, gaussian_kl_cpu(dtype, mu.p, l.p, eps.p, nullptr, z.p, kl.p, sums.p, 1, 1, 1));
        expect(type + ", z far", 0, double(z[0]), line[1], 0);
        expect(type + ", kl far", 0, double(kl[0]), line[2] / 2, line[2] == 2999 ? 1e-3 : 0);
    }
}
}    // namespace

int main() {
    // Around 4 to 16 lanes, blocks of 256 terms, parts of 4096 numbers
    const int64_t shapes[][2] = {{0, 3}, {3, 0}, {1, 1}, {5, 3}, {8, 64}, {3, 65}, {130, 33}, {2, 257}, {2, 8200}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        drive_far<float>(0, std::string(set) + " float32");
        drive_far<double>(3, std::string(set) + " float64");
        for (auto& s : shapes)
            for (int threads : {1, 3})
                for (bool seeded : {true, false}) {
                    drive<float>(0, std::string(set) + " float32", 0x1p-23, s[0], s[1], threads, seeded);
                    drive<double>(3, std::string(set) + " float64", 0x1p-50, s[0], s[1], threads, seeded);
                }
    }
    stop(0, "gaussian_kl_cpu: all right");
}
