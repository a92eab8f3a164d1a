// A MADE of two hidden layers and direct connections for the drivers of csrc/made_sample.cu and .cpp, and its logits by
// the equations.
#pragma once
#include "driver.h"
#include "../made_sample.h"

template <class T> struct Net {
    std::string what;
    int64_t N, D, L, R, known, units[3];    // units: bits of pixels, then the hidden ones
    Array<T> u, W1, W2, V, A, b1, b2, logits;
    Array<uint8_t> x;
    Layer<T> layers[4];
    Array<int64_t> degrees1, degrees2, ends;

    Net(const std::string& what, int64_t N, int64_t D, int64_t L, int64_t H, int64_t known)
        : what(what + " " + std::to_string(N) + "x" + std::to_string(D) + ", " + std::to_string(L) + " levels, " +
               std::to_string(H) + " units"),
          N(N),
          D(D),
          L(L),
          R(L == 2 ? 1 : L),
          known(known),
          units{D * (L - 1), H, H + 3},
          u(N * D),
          W1(H * units[0]),
          W2(units[2] * H),
          V(D * R * units[2]),
          A(D * R * units[0]),
          b1(H),
          b2(units[2]),
          logits(N * D * R),
          x(N * D),
          degrees1(H),
          degrees2(units[2]),
          ends(3 * (D + 1)) {
        fill(u), fill(W1), fill(W2), fill(V), fill(A), fill(b1), fill(b2);
        for (int64_t i = 0; i < u.n; i++) u[i] = (u[i] + 1) / 2;
        for (int64_t i = 0; i < x.n; i++)
            if (i % D < known) x[i] = uint8_t((uniform() + 1) / 2 * L);
        layers[0] = {W1.p, b1.p, degrees1.p, units[0]}, layers[1] = {W2.p, b2.p, degrees2.p, H};
        // V has no bias
        layers[2] = {V.p, nullptr, nullptr, units[2]}, layers[3] = {A.p, nullptr, nullptr, units[0]};
        // ascending from 0, at most D
        for (int64_t j = 0; j < H; j++) degrees1[j] = j * D / H + (j > 0 && D > 0);
        for (int64_t j = 0; j < units[2]; j++) degrees2[j] = j * D / units[2] + (j > 0 && D > 0);
    }

    Sizes sizes() const { return {known, 2, L, N, D, units[0] + units[1] + units[2]}; }

    // Computes every logit in double from the pixels, and every pixel from the logits that the kernel gave
    void check(double precision) {
        double close = precision * double(units[0] + units[1] + units[2] + 8) * 16;
        for (int64_t n = 0; n < N; n++)
            for (int64_t d = 0; d < D; d++) {
                const uint8_t* row = x.p + n * D;
                auto bit = [&](int64_t k) { return row[k / (L - 1)] > k % (L - 1) ? 1.0 : 0.0; };
                std::vector<double> z1(units[1]), z2(units[2]);
                for (int64_t j = 0; j < units[1]; j++) {
                    double sum = b1[j];
                    for (int64_t k = 0; k < degrees1[j] * (L - 1); k++) sum += double(W1[j * units[0] + k]) * bit(k);
                    z1[j] = sum > 0 ? sum : 0;
                }
                for (int64_t j = 0; j < units[2]; j++) {
                    double sum = b2[j];
                    for (int64_t k = 0; k < units[1]; k++)
                        if (degrees1[k] <= degrees2[j]) sum += double(W2[j * units[1] + k]) * z1[k];
                    z2[j] = sum > 0 ? sum : 0;
                }
                const T* l = logits.p + (n * D + d) * R;
                for (int64_t r = 0; r < R; r++) {
                    double sum = 0;
                    for (int64_t k = 0; k < units[2]; k++)
                        if (degrees2[k] <= d) sum += double(V[(d * R + r) * units[2] + k]) * z2[k];
                    for (int64_t k = 0; k < d * (L - 1); k++) sum += double(A[(d * R + r) * units[0] + k]) * bit(k);
                    expect(what + " logit", (n * D + d) * R + r, l[r], sum, close);
                }
                if (d < known) continue;
                double total = L == 2 ? 1 + exp(double(l[0])) : 0, below = L == 2 ? 1 / total : 0;
                for (int64_t k = 0; k < L && L > 2; k++) total += exp(double(l[k]));
                int64_t level = L == 2 && u[n * D + d] >= below, tie = L == 2 && fabs(u[n * D + d] - below) < 1e-6;
                for (int64_t k = 0; k < L - 1 && L > 2; k++) {
                    below += exp(double(l[k])) / total;
                    level += u[n * D + d] >= below, tie |= fabs(u[n * D + d] - below) < 1e-6;
                }
                if (!tie) expect(what + " pixel", n * D + d, row[d], double(level), 0);
            }
    }
};
