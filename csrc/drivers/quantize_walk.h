// One case for both drivers of quantize: its arrays, some indices out of range, and what must come out.
#pragma once
#include "driver.h"

template <class Z, class E, class R> struct Walk {
    const double beta = 0.25;
    int64_t N, K, D;
    Array<Z> z{N * D}, z_q{N * D}, dz_q{N * D}, dz{N * D};
    Array<E> e{K * D}, de{K * D};
    Array<R> loss{N}, dloss{N};
    Array<int64_t> index{N};

    Walk(int64_t N, int64_t K, int64_t D) : N(N), K(K), D(D) {
        fill(z, 3), fill(e, 3), fill(dz_q), fill(dloss);
        for (int64_t n = 0; n < N; n++) index[n] = int64_t((uniform() + 1) / 2 * K);
        for (int64_t n = 10; n < N; n += 11) index[n] = n % 2 ? -1 : K;    // reads no code and adds nothing
    }

    bool inside(int64_t n) { return index[n] >= 0 && index[n] < K; }
    double code(int64_t n, int64_t d) { return inside(n) ? to_double(e[index[n] * D + d]) : 0; }
    double difference(int64_t n, int64_t d) { return inside(n) ? to_double(z[n * D + d]) - code(n, d) : 0; }

    void expect_all(const std::string& what, double z_precision, double e_precision) {
        const double R_precision = sizeof(R) == 4 ? 0x1p-22 : 0x1p-48;
        for (int64_t n = 0; n < N; n++) {
            double square = 0;
            for (int64_t d = 0; d < D; d++) {
                int64_t i = n * D + d;
                double pull = 2 * beta * difference(n, d) * dloss[n], from = to_double(dz_q[i]);
                square += difference(n, d) * difference(n, d);
                expect(what + " z_q", i, to_double(z_q[i]), code(n, d), z_precision * fabs(code(n, d)) + 0x1p-24);
                expect(what + " dz", i, to_double(dz[i]), from + pull, 2 * z_precision * (1 + fabs(pull)));
            }
            expect(what + " loss", n, loss[n], (1 + beta) * square, R_precision * square);
        }
        for (int64_t i = 0; i < K * D; i++) {
            double push = 0, size = 1;
            for (int64_t n = 0; n < N; n++)
                if (index[n] == i / D)
                    push -= 2 * difference(n, i % D) * dloss[n], size += fabs(2 * difference(n, i % D) * dloss[n]);
            expect(what + " de", i, to_double(de[i]), push, 2 * (e_precision + R_precision) * size);
        }
    }
};
