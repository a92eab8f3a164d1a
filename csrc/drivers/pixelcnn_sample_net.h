// A small PixelCNN for the drivers of csrc/pixelcnn_sample.cu and .cpp: a layer by rows, a gate, a residual, all sights; and what it says.
#pragma once
#include "driver.h"
#include "../pixelcnn_sample.h"

template <class T> struct Net {
    std::string what;
    int64_t N, H, W, C, L, K, known, D, F, numbers = 0, widest = 0, bias_columns = 0, classes = 2;
    std::vector<Stream> streams;
    std::vector<Layer> layers;
    std::vector<Tap> taps;
    Array<T> u, weights, biases, logits;
    Array<int64_t> x, y, tables;

    static int64_t steps_of(int64_t L) { return L - 1 < 32 ? L - 1 : 32; }

    // M channels a colour
    Net(const std::string& what, int64_t N, int64_t H, int64_t W, int64_t C, int64_t L, int64_t K, int64_t M, int64_t known)
        : what(what + " " + std::to_string(N) + "x" + std::to_string(H) + "x" + std::to_string(W) + ", " + std::to_string(C) + " colours, " +
               std::to_string(L) + " levels, " + std::to_string(K) + " logistics, " + std::to_string(M) + " channels"),
          N(N),
          H(H),
          W(W),
          C(C),
          L(L),
          K(K),
          known(known),
          D(H * W * C),
          F(K ? 3 * K : L == 2 ? 1
                               : L),
          u(N * D),
          weights(count(C, L, M, F)),
          biases(2 * (2 * C * M + 2 * C * M + C * M + C * F)),
          logits(N * D * F),
          x(N * D),
          y(N),
          tables(1000) {
        int64_t in = C * (1 + steps_of(L)), wide = 2 * C * M, at = 0;
        streams = {{in, 2, 0}};
        auto add = [&](int64_t outputs, int64_t act, int64_t residual, int64_t rows, std::vector<std::vector<int64_t>> looks) {
            int64_t a = int64_t(layers.size()), begin = int64_t(taps.size());
            for (auto& look : looks) {
                taps.push_back({look[0], look[1], look[2], look[3], at});
                at += streams[look[0]].channels * outputs;
            }
            layers.push_back({outputs, act, 2 * a + 1, act ? 2 * a + 2 : -1, residual, bias_columns, begin, int64_t(taps.size()), rows});
            streams.push_back({outputs, 2, 0}), streams.push_back({act == GATE ? outputs / 2 : act ? outputs
                                                                                                   : 0,
                                                                   2, 0});
            bias_columns += outputs, widest = outputs > widest ? outputs : widest;
        };
        add(wide, GATE, -1, 1, {{0, -1, -1, ALL}, {0, -1, 0, ALL}, {0, -1, 1, ALL}});
        add(wide, GATE, -1, 0, {{0, 0, -1, ALL}, {0, 0, 0, EARLIER}, {1, 0, 0, ALL}});
        add(C * M, RELU, 4, 0, {{4, -1, 0, ALL}, {4, 0, -1, ALL}, {4, 0, 0, UP_TO}});
        add(C * F, 0, -1, 0, {{6, 0, 0, UP_TO}});
        for (Stream& s : streams) s.offset = numbers, numbers += s.depth * W * s.channels;
        fill(u), fill(weights, 0.7), fill(biases);
        for (int64_t i = 0; i < u.n; i++) u[i] = (u[i] + 1) / 2;
        for (int64_t n = 0; n < N; n++) y[n] = n % classes;
        for (int64_t i = 0; i < x.n; i++)
            if (i % (D ? D : 1) < known) x[i] = int64_t((uniform() + 1) / 2 * double(L));
        memcpy((void*)tables.p, streams.data(), streams.size() * sizeof(Stream));    // a GPU reads them too
        memcpy((void*)(tables.p + 100), layers.data(), layers.size() * sizeof(Layer));
        memcpy((void*)(tables.p + 200), taps.data(), taps.size() * sizeof(Tap));
    }
    static int64_t count(int64_t C, int64_t L, int64_t M, int64_t F) {
        int64_t in = C * (1 + steps_of(L)), wide = 2 * C * M;
        return wide * 3 * in + wide * (2 * in + wide) + C * M * 3 * C * M + C * F * C * M;
    }

    // Every layer over the whole image, in double; then the numbers from the logits that were given out
    void check(double precision) {
        for (int64_t n = 0; n < N; n++) {
            std::vector<std::vector<double>> z;
            for (Stream& s : streams) z.emplace_back(H * W * s.channels);
            std::vector<double> pixel(1 + steps_of(L));
            for (int64_t d = 0; d < D; d++) {
                embed(x[n * D + d], L, steps_of(L), pixel.data());
                for (size_t k = 0; k < pixel.size(); k++) z[0][d * int64_t(pixel.size()) + int64_t(k)] = pixel[k];
            }
            for (Layer& a : layers)
                for (int64_t i = 0; i < H; i++)
                    for (int64_t j = 0; j < W; j++) {
                        std::vector<double> s(a.outputs);
                        for (int64_t o = 0; o < a.outputs; o++) {
                            s[o] = biases[y[n] * bias_columns + a.bias + o];
                            for (int64_t t = a.tap; t < a.taps_end; t++) {
                                const Tap& tap = taps[t];
                                int64_t I = streams[tap.stream].channels;
                                if (i + tap.di < 0 || j + tap.dj < 0 || j + tap.dj >= W) continue;
                                for (int64_t c = 0; c < I; c++) {
                                    int64_t mine = o * C / a.outputs, its = c * C / I;
                                    if ((tap.sight == EARLIER && its >= mine) || (tap.sight == UP_TO && its > mine)) continue;
                                    s[o] += z[tap.stream][((i + tap.di) * W + j + tap.dj) * I + c] * double(weights[tap.weight + c * a.outputs + o]);
                                }
                            }
                            if (a.residual >= 0) s[o] += z[a.residual][(i * W + j) * a.outputs + o];
                            z[a.raw][(i * W + j) * a.outputs + o] = s[o];
                            if (a.act == RELU) z[a.after][(i * W + j) * a.outputs + o] = s[o] > 0 ? s[o] : 0;
                        }
                        for (int64_t k = 0; a.act == GATE && k < a.outputs / 2; k++)
                            z[a.after][(i * W + j) * a.outputs / 2 + k] = tanh(s[2 * k]) / (1 + exp(-s[2 * k + 1]));
                    }
            const std::vector<double>& wanted = z[layers.back().raw];
            for (int64_t d = 0; d < D; d++) {
                const T* l = logits.p + (n * D + d) * F;
                for (int64_t f = 0; f < F; f++) expect(what + " logit", (n * D + d) * F + f, l[f], wanted[d * F + f], 3000 * double(widest) * precision);
                if (d >= known) expect(what + " number", n * D + d, double(x[n * D + d]), double(drawn(l, u[n * D + d], L, K)), 0);
            }
        }
    }
};
