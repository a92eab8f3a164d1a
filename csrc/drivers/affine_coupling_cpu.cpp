// Drives csrc/affine_coupling.cpp, the CPU's own couplings, with one thread and with three, on every instruction set
// that this processor has; on tensors whose numbers lie side by side, and on others.
#include "../cpu/divide.h"
#include "affine_coupling_walk.h"

#define FORWARD(name)                                                                                            \
    extern "C" int name(int dtype, const void* x, const void* s, const void* t, const int64_t* strides, void* y, \
                        void* logdet, void* part, int64_t N, int64_t D, int threads)
FORWARD(affine_coupling_cpu);
FORWARD(affine_coupling_inverse_cpu);
extern "C" int affine_coupling_backward_cpu(int dtype, const void* dy, const void* dlogdet, const void* kept,
                                            const void* s, const void* t, const int64_t* strides, void* dx, void* ds,
                                            int64_t N, int64_t D, int threads);
extern "C" int affine_coupling_inverse_backward_cpu(int dtype, const void* dx, const void* dlogdet, const void* x,
                                                    const void* s, const int64_t* strides, void* dy, void* ds, void* dt,
                                                    int64_t N, int64_t D, int threads);

namespace {

// How the columns of an (N, D) tensor lie, with `gap` numbers between two of them and `more` between two rows
struct Layout {
    int64_t gap, more;
};
const Layout LAYOUTS[] = {{0, 0}, {0, 5}, {1, 0}, {2, 1}};

// A copy of a, of exact size and NaN between its numbers, that lies so
template <class T> struct Spread {
    const int64_t step, row;
    Array<T> all;
    Spread(const T* a, Layout lies, int64_t N, int64_t D)
        : step(1 + lies.gap), row(D * step + lies.more), all(a && N * D ? (N - 1) * row + (D - 1) * step + 1 : 0) {
        for (int64_t i = 0; all.n && i < N * D; i++) all[i / D * row + i % D * step] = a[i];
    }
};

template <class T>
void drive(int dtype, const std::string& what, double precision, int64_t N, int64_t D, int threads, Layout lies) {
    const int64_t parts = ceil_div(D, 4096);
    Array<double> part(parts > 1 ? N * parts * 2 : 0);
    walk<T, T>(
        what, precision, N, D,
        [&](auto& x, auto& s, auto& t, auto& y, auto& logdet, bool inverse) {
            const Spread<T> X(x.p, {0, lies.more}, N, D), S(s.p, lies, N, D), U(t.p, lies, N, D);
            const int64_t strides[] = {X.row, X.step, S.row, S.step, U.row, U.step};
            auto forward = inverse ? affine_coupling_inverse_cpu : affine_coupling_cpu;
            return forward(dtype, X.all.p, S.all.p, U.all.p, strides, y.p, logdet.p, part.p, N, D, threads);
        },
        [&](auto& dy, auto& dlogdet, auto& kept, auto& s, const T* t, auto& dx, auto& ds, bool inverse) {
            const Spread<T> G(dy.p, lies, N, D), K(kept.p, {0, lies.more}, N, D), S(s.p, lies, N, D), U(t, lies, N, D);
            const int64_t strides[] = {G.row, G.step, K.row, K.step, S.row, S.step, U.row, U.step};
            if (inverse) {
                Array<T> dt(N * D);
                int code = affine_coupling_inverse_backward_cpu(dtype, G.all.p, dlogdet.p, K.all.p, S.all.p, strides,
                                                                dx.p, ds.p, dt.p, N, D, threads);
                for (int64_t i = 0; i < N * D; i++) expect(what + " inverse dt", i, dt[i], -dx[i], 0);
                return code;
            }
            return affine_coupling_backward_cpu(dtype, G.all.p, dlogdet.p, K.all.p, S.all.p, t ? U.all.p : nullptr,
                                                strides, dx.p, ds.p, N, D, threads);
        });
}

}    // namespace

int main() {
    const int64_t large[][2] = {{3000, 3}, {9, 4100}};    // for several tasks
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (int threads : {1, 3}) {
            std::string what = std::string(set) + ", " + std::to_string(threads) + " threads";
            auto all = [&](int64_t N, int64_t D, Layout lies) {
                drive<float>(0, what + ", float32", 0x1p-23, N, D, threads, lies);
                drive<double>(3, what + ", float64", 0x1p-50, N, D, threads, lies);
            };
            for (auto& shape : SHAPES)
                for (Layout lies : LAYOUTS) all(shape[0], shape[1], lies);
            for (auto& shape : large) all(shape[0], shape[1], {1, 0});
        }
    }
    stop(0, "affine_coupling_cpu: all right");
}
