// Drives csrc/spline_coupling.cpp, the CPU's own splines, with one thread and with three, on every instruction set that
// this processor has.
#include "spline_coupling_walk.h"

extern "C" int spline_coupling_cpu(int dtype, bool inverse, const void* x, const void* w, void* y, void* logdet,
                                   double B, double least, double shift, int64_t N, int64_t D, int64_t K,
                                   int threads);
extern "C" int spline_coupling_backward_cpu(int dtype, bool inverse, const void* dy, const void* dlogdet,
                                            const void* x, const void* w, void* dx, void* dw, double B, double least,
                                            double shift, int64_t N, int64_t D, int64_t K, int threads);

namespace {

template <class T> void drive(int dtype, const std::string& what, double precision, const int64_t* shape, int threads) {
    const int64_t N = shape[0], D = shape[1], K = shape[2];
    walk<T, T>(
        what, precision, N, D, K,
        [&](auto& x, auto& w, auto& y, auto& logdet, bool inverse) {
            return spline_coupling_cpu(dtype, inverse, x.p, w.p, y.p, logdet.p, BOUND, LEAST, shift(), N, D, K,
                                       threads);
        },
        [&](auto& dy, auto& dlogdet, auto& x, auto& w, auto& dx, auto& dw, bool inverse) {
            return spline_coupling_backward_cpu(dtype, inverse, dy.p, dlogdet.p, x.p, w.p, dx.p, dw.p, BOUND, LEAST,
                                                shift(), N, D, K, threads);
        });
}

}    // namespace

int main() {
    const int64_t large[] = {400, 3, 8};    // for several tasks
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (int threads : {1, 3}) {
            std::string what = std::string(set) + ", " + std::to_string(threads) + " threads";
            for (auto& shape : SHAPES) {
                drive<float>(0, what + ", float32", 0x1p-23, shape, threads);
                drive<double>(3, what + ", float64", 0x1p-50, shape, threads);
            }
            drive<float>(0, what + ", float32", 0x1p-23, large, threads);
        }
    }
    stop(0, "spline_coupling_cpu: all right");
}
