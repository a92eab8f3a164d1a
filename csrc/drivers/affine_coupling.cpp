// Drives csrc/affine_coupling.cu: both rungs, forward, inverse and both backwards, four dtypes, rows around every edge.
#include "driver.h"
namespace {
#include "../affine_coupling.cu"

template <class T> void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D,
                              bool one_pass) {
    std::string what = type + " " + std::to_string(N) + "x" + std::to_string(D) + (one_pass ? " one_pass" : " naive");
    int64_t ND = N * D;
    Array<T> x(ND), s(ND), t(ND), y(ND), back(ND), dy(ND), dx(ND), ds(ND);
    Array<real<T>> logdet(N), dlogdet(N);
    Array<Sum> part(N * ceil_div(D, CHUNK));
    fill(x, 2), fill(s), fill(t), fill(dy), fill(dlogdet);
    auto close = [&](const std::string& of, int64_t i, T got, double want) {
        expect(what + of, i, to_double(got), want, 4 * precision * (1 + fabs(want)));
    };
    auto sum_of_s = [&](int64_t n) {
        double sum = 0;
        for (int64_t d = 0; d < D; d++) sum += to_double(s[n * D + d]);
        return sum;
    };

    auto forward = one_pass ? affine_coupling_one_pass : affine_coupling_naive;
    run(what, forward(dtype, x.p, s.p, t.p, y.p, logdet.p, part.p, N, D, nullptr));
    for (int64_t i = 0; i < ND; i++) close(" y", i, y[i], to_double(x[i]) * exp(to_double(s[i])) + to_double(t[i]));
    for (int64_t n = 0; n < N; n++)
        expect(what + " logdet", n, logdet[n], sum_of_s(n), 0x1p-23 * fabs(sum_of_s(n)) + 0x1p-40 * D);

    auto inverse = one_pass ? affine_coupling_inverse_one_pass : affine_coupling_inverse_naive;
    run(what, inverse(dtype, y.p, s.p, t.p, back.p, logdet.p, part.p, N, D, nullptr));
    for (int64_t i = 0; i < ND; i++)
        close(" inverse", i, back[i], (to_double(y[i]) - to_double(t[i])) * exp(-to_double(s[i])));
    for (int64_t n = 0; n < N; n++)
        expect(what + " inverse logdet", n, logdet[n], -sum_of_s(n), 0x1p-23 * fabs(sum_of_s(n)) + 0x1p-40 * D);

    for (bool from_y : {false, true}) {
        auto backward = one_pass ? affine_coupling_backward_one_pass : affine_coupling_backward_naive;
        run(what, backward(dtype, dy.p, dlogdet.p, from_y ? y.p : x.p, s.p, from_y ? t.p : nullptr, dx.p, ds.p, N, D,
                           nullptr));
        for (int64_t i = 0; i < ND; i++) {
            double es = exp(to_double(s[i])), xes = from_y ? to_double(y[i]) - to_double(t[i]) : to_double(x[i]) * es;
            close(" dx", i, dx[i], to_double(dy[i]) * es);
            close(" ds", i, ds[i], to_double(dy[i]) * xes + dlogdet[i / D]);
        }
    }

    auto backward = one_pass ? affine_coupling_inverse_backward_one_pass : affine_coupling_inverse_backward_naive;
    run(what, backward(dtype, dy.p, dlogdet.p, x.p, s.p, dx.p, ds.p, N, D, nullptr));
    for (int64_t i = 0; i < ND; i++) {
        close(" inverse dy", i, dx[i], to_double(dy[i]) * exp(-to_double(s[i])));
        close(" inverse ds", i, ds[i], -to_double(dy[i]) * to_double(x[i]) - dlogdet[i / D]);
    }
}
}    // namespace

int main() {
    const int64_t shapes[][2] = {{0, 5}, {3, 0}, {1, 1}, {7, 3}, {5, 16}, {33, 40},    // short rows
                                 {2, 512},
                                 {2, 513},
                                 {3, 520},
                                 {1, 4096},
                                 {2, 4104},
                                 {1, 8193}};
    each_dtype([&](auto zero, int dtype, const std::string& name, double precision) {
        for (auto& shape : shapes)
            for (bool one_pass : {false, true})
                drive<decltype(zero)>(dtype, name, precision, shape[0], shape[1], one_pass);
    });
    stop(0, "affine_coupling: all right");
}
