// What the drivers of csrc/spline_coupling.cu and .cpp share: one element by the paper's formulas, in plain double.
#pragma once
#include "driver.h"

namespace {

constexpr double BOUND = 4, LEAST = 0x1p-10;
inline double shift() { return log(expm1(1 - LEAST)); }

struct Curve {    // of one element
    std::vector<double> x, y, slope;
    template <class T> Curve(const T* w, int64_t K) : x(K + 1, -BOUND), y(K + 1, -BOUND), slope(K + 1, 1) {
        for (std::vector<double>* knots : {&x, &y}) {
            double sum = 0;
            for (int64_t j = 0; j < K; j++) sum += exp(to_double(w[j]));
            for (int64_t j = 0; j < K; j++)
                (*knots)[j + 1] = (*knots)[j] + 2 * BOUND * (LEAST + (1 - K * LEAST) * exp(to_double(w[j])) / sum);
            w += K;
        }
        for (int64_t k = 1; k < K; k++) slope[k] = LEAST + log1p(exp(to_double(w[k - 1]) + shift()));
    }
    // y and ln dy/dx at v
    void at(double v, double* out, double* ln) const {
        *out = v, *ln = 0;
        if (v < -BOUND || v > BOUND) return;
        size_t k = 0;
        while (k + 2 < x.size() && v >= x[k + 1]) k++;
        double w = x[k + 1] - x[k], h = y[k + 1] - y[k], s = h / w, t = (v - x[k]) / w, p = t * (1 - t);
        double den = s + (slope[k] + slope[k + 1] - 2 * s) * p;
        *out = y[k] + h * (s * t * t + slope[k] * p) / den;
        *ln = log(s * s * (slope[k + 1] * t * t + 2 * s * p + slope[k] * (1 - t) * (1 - t)) / (den * den));
    }
};

// g y + e ln dy/dx of one element: what its gradients differentiate
inline double loss(double v, const std::vector<double>& w, int64_t K, double g, double e) {
    double y, ln;
    Curve(w.data(), K).at(v, &y, &ln);
    return g * y + e * ln;
}
inline double inverse(const Curve& curve, double y) {    // by bisection
    double low = -BOUND, high = BOUND, found, ln;
    if (y < low || y > high) return y;
    for (int i = 0; i < 60; i++) {
        curve.at((low + high) / 2, &found, &ln);
        (found < y ? low : high) = (low + high) / 2;
    }
    return (low + high) / 2;
}

// forward(x, w, y, logdet, inverse) and backward(dy, dlogdet, x, w, dx, dw, inverse) launch the kernels. They compute
// in R, to `within` here, and round to T
template <class T, class R, class Forward, class Backward>
void walk(const std::string& what, double precision, int64_t N, int64_t D, int64_t K, Forward forward,
          Backward backward) {
    const int64_t J = 3 * K - 1, ND = N * D;
    const double within = (sizeof(R) == 4 ? 0x1p-23 : 0x1p-50) * (K + 4), step = 0x1p-20;
    Array<T> x(ND), y(ND), back(ND), w(ND * J), dy(ND), dx(ND), dw(ND * J), dback(ND), dw_back(ND * J);
    Array<R> logdet(N), minus(N), dlogdet(N);
    fill(x, 5), fill(w), fill(dy), fill(dlogdet);
    auto near = [&](const std::string& of, int64_t i, T got, double want, double off) {
        expect(what + of, i, to_double(got), want, off + precision * fabs(want));
    };
    run(what, forward(x, w, y, logdet, false));
    run(what, forward(y, w, back, minus, true));
    run(what, backward(dy, dlogdet, x, w, dx, dw, false));
    run(what, backward(dy, dlogdet, y, w, dback, dw_back, true));
    for (int64_t n = 0; n < N; n++) {
        double sum = 0, sum_back = 0, want, ln;
        for (int64_t i = n * D; i < (n + 1) * D; i++) {
            Curve curve(w.p + i * J, K);
            curve.at(to_double(x[i]), &want, &ln), sum += ln;
            near(" y", i, y[i], want, 64 * within);
            double found = inverse(curve, to_double(y[i]));
            near(" inverse", i, back[i], found, 256 * within);
            curve.at(found, &want, &ln), sum_back += ln;
        }
        expect(what + " logdet", n, logdet[n], sum, 256 * D * within);
        expect(what + " inverse logdet", n, minus[n], -sum_back, 1024 * D * within);
    }
    for (int64_t i = 0; i < ND; i += 1 + ND / 16) {    // central differences of some elements
        std::vector<double> its(J);
        for (int64_t j = 0; j < J; j++) its[j] = to_double(w[i * J + j]);
        const double g = to_double(dy[i]), e = dlogdet[i / D], at = inverse(Curve(its.data(), K), to_double(y[i]));
        auto along_x = [&](double v, double g, double e) {
            return (loss(v + step, its, K, g, e) - loss(v - step, its, K, g, e)) / (2 * step);
        };
        auto along_w = [&](double v, int64_t j, double g, double e) {
            double value = its[j], of[2];
            for (int side : {0, 1}) its[j] = value + (side ? step : -step), of[side] = loss(v, its, K, g, e);
            its[j] = value;
            return (of[1] - of[0]) / (2 * step);
        };
        // that of the inverse is that of the forward there for -its dy and -dlogdet
        const double off = 0x1p-18 + 0x1p12 * within;
        const double v = to_double(x[i]), inverse_dy = (g - along_x(at, 0, e)) / along_x(at, 1, 0);
        near(" dx", i, dx[i], along_x(v, g, e), off);
        near(" inverse dy", i, dback[i], inverse_dy, 8 * off * (1 + fabs(inverse_dy)));
        for (int64_t j = 0; j < J; j++) {
            near(" dw", i * J + j, dw[i * J + j], along_w(v, j, g, e), off);
            near(" inverse dw", i * J + j, dw_back[i * J + j], along_w(at, j, -inverse_dy, -e),
                 8 * off * (1 + fabs(inverse_dy)));
        }
    }
}

// N, D, K
const int64_t SHAPES[][3] = {{0, 3, 4}, {3, 0, 4}, {1, 1, 2}, {7, 3, 5}, {5, 1, 8}, {2, 33, 3}, {1, 99, 4}, {2, 2, 64}};

}    // namespace
