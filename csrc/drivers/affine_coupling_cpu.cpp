// Drives csrc/affine_coupling.cpp, the CPU's own couplings, with one thread and with three, on every instruction set
// that this processor has.
#include "../cpu/divide.h"
#include "affine_coupling_walk.h"

#define FORWARD(name)                                                                                              \
    extern "C" int name(int dtype, const void* x, const void* s, const void* t, void* y, void* logdet, void* part, \
                        int64_t N, int64_t D, int threads)
FORWARD(affine_coupling_cpu);
FORWARD(affine_coupling_inverse_cpu);
extern "C" int affine_coupling_backward_cpu(int dtype, const void* dy, const void* dlogdet, const void* kept,
                                            const void* s, const void* t, void* dx, void* ds, int64_t N, int64_t D,
                                            int threads);
extern "C" int affine_coupling_inverse_backward_cpu(int dtype, const void* dx, const void* dlogdet, const void* x,
                                                    const void* s, void* dy, void* ds, int64_t N, int64_t D,
                                                    int threads);

namespace {

template <class T> void drive(int dtype, const std::string& what, double precision, int64_t N, int64_t D, int threads) {
    const int64_t parts = ceil_div(D, 4096);
    Array<double> part(parts > 1 ? N * parts * 2 : 0);
    walk<T, T>(
        what, precision, N, D,
        [&](auto& x, auto& s, auto& t, auto& y, auto& logdet, bool inverse) {
            auto forward = inverse ? affine_coupling_inverse_cpu : affine_coupling_cpu;
            return forward(dtype, x.p, s.p, t.p, y.p, logdet.p, part.p, N, D, threads);
        },
        [&](auto& dy, auto& dlogdet, auto& kept, auto& s, const T* t, auto& dx, auto& ds, bool inverse) {
            if (inverse)
                return affine_coupling_inverse_backward_cpu(dtype, dy.p, dlogdet.p, kept.p, s.p, dx.p, ds.p, N, D,
                                                            threads);
            return affine_coupling_backward_cpu(dtype, dy.p, dlogdet.p, kept.p, s.p, t, dx.p, ds.p, N, D, threads);
        });
}

}    // namespace

int main() {
    const int64_t large[][2] = {{3000, 3}, {9, 4100}};    // for several tasks
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (int threads : {1, 3}) {
            std::string what = std::string(set) + ", " + std::to_string(threads) + " threads";
            for (auto& shape : SHAPES) {
                drive<float>(0, what + ", float32", 0x1p-23, shape[0], shape[1], threads);
                drive<double>(3, what + ", float64", 0x1p-50, shape[0], shape[1], threads);
            }
            for (auto& shape : large) drive<float>(0, what + ", float32", 0x1p-23, shape[0], shape[1], threads);
        }
    }
    stop(0, "affine_coupling_cpu: all right");
}
