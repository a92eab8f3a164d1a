// What both drivers of NADE share: its numbers, the walk of the equations in double, and the comparison with it.
#pragma once
#include "driver.h"

template <class T> struct Nade {
    std::string what;
    int64_t N, D, H, known;
    Array<T> u, W, V, b, c, logits, dl, dW, dV, dc;
    Array<uint8_t> x;
    double close;    // how far a kernel may be from the walk

    Nade(const std::string& what, double precision, int64_t N, int64_t D, int64_t H, int64_t known)
        : what(what + " " + std::to_string(N) + "x" + std::to_string(D) + ", " + std::to_string(H) + " units"),
          N(N),
          D(D),
          H(H),
          known(known),
          u(N * D),
          W(D * H),
          V(D * H),
          b(D),
          c(H),
          logits(N * D),
          dl(N * D),
          dW(D * H),
          dV(D * H),
          dc(H),
          x(N * D),
          close(8 * precision * (4 + double(H)) * (4 + double(D))) {
        fill(u), fill(W), fill(V), fill(b), fill(c), fill(dl);
        for (int64_t i = 0; i < u.n; i++) u[i] = (u[i] + 1) / 2;
        for (int64_t i = 0; i < x.n; i++)
            if (i % D < known) x[i] = uniform() < 0;    // the pass writes the others
    }

    // Compares the logits, the drawn pixels (where u lies within `edge` of the probability both values are right) and
    // the gradient
    void check(bool gradient, double edge) {
        std::vector<double> h(D * H), wantW(D * H), wantV(D * H), wantc(H);
        for (int64_t n = 0; n < N; n++) {
            std::vector<double> a(c.p, c.p + H);
            for (int64_t d = 0; d < D; d++) {
                int64_t nd = n * D + d;
                double l = b[d];
                for (int64_t k = 0; k < H; k++) {
                    h[d * H + k] = 1 / (1 + exp(-a[k]));
                    l += V[d * H + k] * h[d * H + k];
                    if (x[nd]) a[k] += W[d * H + k];
                }
                expect(what + " logit", nd, logits[nd], l, close);
                T off = T(1) / (T(1) + exp(logits[nd]));
                if (d >= known && fabs(double(u[nd]) - off) > edge) expect(what + " pixel", nd, x[nd], u[nd] >= off, 0);
                if (x[nd] > 1) stop(1, "%s: pixel %lld is %d", what.c_str(), (long long)nd, x[nd]);
            }
            for (int64_t k = 0; k < H; k++) {
                double A = 0;
                for (int64_t d = D - 1; d >= 0; d--) {
                    double s = h[d * H + k], g = dl[n * D + d];
                    if (x[n * D + d]) wantW[d * H + k] += A;
                    wantV[d * H + k] += g * s;
                    A += g * V[d * H + k] * s * (1 - s);
                }
                wantc[k] += A;
            }
        }
        if (!gradient) return;
        for (int64_t i = 0; i < D * H; i++) {
            expect(what + " dW", i, dW[i], wantW[i], close * double(N));
            expect(what + " dV", i, dV[i], wantV[i], close * double(N));
        }
        for (int64_t k = 0; k < H; k++) expect(what + " dc", k, dc[k], wantc[k], close * double(N));
    }
};
