// Drives csrc/softmax_nll.cpp, the CPU's own loss over levels and its gradient, with one thread and with three, on
// every instruction set that this processor has: levels first, levels last, and every second number of a larger array.
#include "driver.h"

extern "C" int softmax_nll_cpu(int dtype, const void* a, const void* t, void* nll, void* m, void* log_s, int64_t N,
                               int64_t L, int64_t P, int64_t a_n, int64_t a_l, int64_t a_p, int threads);
extern "C" int softmax_nll_backward_cpu(int dtype, const void* dnll, const void* a, const void* t, const void* m,
                                        const void* log_s, void* da, int64_t N, int64_t L, int64_t P, int64_t a_n,
                                        int64_t a_l, int64_t a_p, int64_t da_n, int64_t da_l, int64_t da_p,
                                        int threads);

namespace {

template <class T>
void drive(int dtype, const std::string& of, double precision, const int64_t* shape, int layout, int threads) {
    const int64_t N = shape[0], L = shape[1], P = shape[2], step = layout == 2 ? 2 : 1;
    const int64_t n = L * P * step, l = layout == 1 ? 1 : P * step, p = layout == 1 ? L : step;
    const std::string what = of + ", layout " + std::to_string(layout);
    Array<T> a(N * L * P * step), da(a.n), nll(N * P), m(N * P), log_s(N * P), dnll(N * P);
    Array<int64_t> t(N * P);
    fill(a, 5), fill(dnll);
    for (int64_t r = 0; r < N * P; r++) t[r] = r * 7 % L;
    run(what, softmax_nll_cpu(dtype, a.p, t.p, nll.p, m.p, log_s.p, N, L, P, n, l, p, threads));
    run(what, softmax_nll_backward_cpu(dtype, dnll.p, a.p, t.p, m.p, log_s.p, da.p, N, L, P, n, l, p, n, l, p,
                                       threads));
    for (int64_t r = 0; r < N * P; r++) {
        const int64_t first = r / P * n + r % P * p;
        double s = 0;
        for (int64_t k = 0; k < L; k++) s += exp(double(a[first + k * l]));
        expect(what + ", nll", r, nll[r], log(s) - double(a[first + t[r] * l]), precision * (L + 64));
        for (int64_t k = 0; k < L; k++) {
            const double q = exp(double(a[first + k * l])) / s;
            expect(what + ", da", r * L + k, da[first + k * l], (q - (k == t[r])) * double(dnll[r]),
                   precision * (L + 64));
        }
    }
}

}    // namespace

int main() {
    // Around 2 to 16 lanes, 4 vectors, 64 levels, several tasks
    const int64_t shapes[][3] = {{0, 3, 2}, {2, 3, 0}, {1, 1, 1}, {2, 17, 7}, {3, 65, 16}, {70, 5, 1}, {5, 130, 3}};
    const int64_t longer[][3] = {{2, 64, 70}, {1, 33, 130}, {2, 3, 2}};
    auto each = [](const std::string& set, auto& list) {
        for (int threads : {1, 3})
            for (auto& shape : list)
                for (int layout : {0, 1, 2}) {
                    std::string what = set + ", " + std::to_string(threads) + " threads";
                    drive<float>(0, what + ", float32", 0x1p-23, shape, layout, threads);
                    drive<double>(3, what + ", float64", 0x1p-50, shape, layout, threads);
                }
    };
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        each(set, shapes), each(set, longer);
    }
    stop(0, "softmax_nll_cpu: all right");
}
