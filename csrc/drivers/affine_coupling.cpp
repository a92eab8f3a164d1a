// Drives csrc/affine_coupling.cu: both rungs, forward, inverse and both backwards, four dtypes, rows around every edge.
#include "affine_coupling_walk.h"
namespace {
#include "../affine_coupling.cu"

template <class T> void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D,
                              bool one_pass) {
    Array<Sum> part(N * ceil_div(D, CHUNK));
    walk<T, real<T>>(
        type + (one_pass ? " one_pass" : " naive"), precision, N, D,
        [&](auto& x, auto& s, auto& t, auto& y, auto& logdet, bool inverse) {
            auto forward = inverse    ? one_pass ? affine_coupling_inverse_one_pass : affine_coupling_inverse_naive
                           : one_pass ? affine_coupling_one_pass
                                      : affine_coupling_naive;
            return forward(dtype, x.p, s.p, t.p, y.p, logdet.p, part.p, N, D, nullptr);
        },
        [&](auto& dy, auto& dlogdet, auto& kept, auto& s, const T* t, auto& dx, auto& ds, bool inverse) {
            if (inverse) {
                auto backward = one_pass ? affine_coupling_inverse_backward_one_pass
                                         : affine_coupling_inverse_backward_naive;
                return backward(dtype, dy.p, dlogdet.p, kept.p, s.p, dx.p, ds.p, N, D, nullptr);
            }
            auto backward = one_pass ? affine_coupling_backward_one_pass : affine_coupling_backward_naive;
            return backward(dtype, dy.p, dlogdet.p, kept.p, s.p, t, dx.p, ds.p, N, D, nullptr);
        });
}
}    // namespace

int main() {
    each_dtype([&](auto zero, int dtype, const std::string& name, double precision) {
        for (auto& shape : SHAPES)
            for (bool one_pass : {false, true})
                drive<decltype(zero)>(dtype, name, precision, shape[0], shape[1], one_pass);
    });
    stop(0, "affine_coupling: all right");
}
