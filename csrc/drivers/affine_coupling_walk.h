// What the drivers of affine couplings share: all four functions, as the driver launches them, against plain loops in
// double.
#pragma once
#include "driver.h"

namespace {

// Rows around 16 numbers, a short row, and parts of 4096
const int64_t SHAPES[][2] = {{0, 5}, {3, 0}, {1, 1}, {7, 3}, {70, 2}, {33, 16}, {2, 513}, {2, 4104}, {1, 8193}};

// R is what logdet is in: float where T has 16 bits. forward(x, s, t, y, logdet, inverse), and
// backward(dy, dlogdet, kept, s, t, dx, ds, inverse) with t null where x is kept: each returns its error code
template <class T, class R, class Forward, class Backward>
void walk(const std::string& of, double precision, int64_t N, int64_t D, Forward forward, Backward backward) {
    const std::string what = of + " " + std::to_string(N) + "x" + std::to_string(D);
    const int64_t ND = N * D;
    Array<T> x(ND), s(ND), t(ND), y(ND), back(ND), dy(ND), dx(ND), ds(ND);
    Array<R> logdet(N), dlogdet(N);
    fill(x, 2), fill(s), fill(t), fill(dy), fill(dlogdet);
    auto close = [&](const std::string& name, int64_t i, T got, double want) {
        expect(what + name, i, to_double(got), want, 4 * precision * (1 + fabs(want)));
    };
    auto is_sum_of_s = [&](const std::string& name, double sign) {
        for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            for (int64_t d = 0; d < D; d++) sum += to_double(s[n * D + d]);
            expect(what + name, n, logdet[n], sign * sum, 0x1p-23 * fabs(sum) + 0x1p-40 * D);
        }
    };

    run(what, forward(x, s, t, y, logdet, false));
    for (int64_t i = 0; i < ND; i++) close(" y", i, y[i], to_double(x[i]) * exp(to_double(s[i])) + to_double(t[i]));
    is_sum_of_s(" logdet", 1);

    run(what, forward(y, s, t, back, logdet, true));
    for (int64_t i = 0; i < ND; i++)
        close(" inverse", i, back[i], (to_double(y[i]) - to_double(t[i])) * exp(-to_double(s[i])));
    is_sum_of_s(" inverse logdet", -1);

    for (bool from_y : {false, true}) {
        run(what, backward(dy, dlogdet, from_y ? y : x, s, from_y ? t.p : nullptr, dx, ds, false));
        for (int64_t i = 0; i < ND; i++) {
            double es = exp(to_double(s[i])), xes = from_y ? to_double(y[i]) - to_double(t[i]) : to_double(x[i]) * es;
            close(" dx", i, dx[i], to_double(dy[i]) * es);
            close(" ds", i, ds[i], to_double(dy[i]) * xes + dlogdet[i / D]);
        }
    }

    run(what, backward(dy, dlogdet, x, s, nullptr, dx, ds, true));
    for (int64_t i = 0; i < ND; i++) {
        close(" inverse dy", i, dx[i], to_double(dy[i]) * exp(-to_double(s[i])));
        close(" inverse ds", i, ds[i], -to_double(dy[i]) * to_double(x[i]) - dlogdet[i / D]);
    }
}

}    // namespace
