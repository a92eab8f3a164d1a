// A small PixelCNN for the drivers of csrc/pixelcnn_sample.cu and .cpp, and what it gives: a layer by rows, a gate, a
// residual, all sights.
#pragma once
#include "driver.h"
#include "../pixelcnn_sample.h"

struct Case {
    int64_t N, H, W, C, L, K, width, known;    // width: channels of a colour
};

template <class T> struct Net {
    Case s;
    std::string what;
    int64_t M = 3, D, F, numbers = 0, widest = 0, bias_columns = 0, weight = 0, classes = 2;
    std::vector<Stream> streams;
    std::vector<Layer> layers;
    std::vector<Tap> taps;
    Array<T> u, E, weights, biases, logits;
    Array<int64_t> x, y;
    Array<Stream> stream_table;    // a GPU reads these
    Array<Layer> layer_table;
    Array<Tap> tap_table;

    Net(const std::string& what, const Case& s)
        : s(s), what(what + named(s)), D(s.H * s.W * s.C), F(s.K ? 3 * s.K : (s.L == 2 ? 1 : s.L)),    // shapes
          u(s.N * D),
          E(s.L * M),
          weights(count()),
          biases(2 * (5 * s.C * s.width + s.C * F)),
          logits(s.N * D * F),
          x(s.N * D),
          y(s.N),
          stream_table(9),
          layer_table(4),
          tap_table(10) {
        int64_t wide = 2 * s.C * s.width;
        streams = {{s.C * M, 2, 0}};
        add(wide, GATE, -1, 1, {{0, -1, -1, ALL}, {0, -1, 0, ALL}, {0, -1, 1, ALL}});
        add(wide, GATE, -1, 0, {{0, 0, -1, ALL}, {0, 0, 0, EARLIER}, {1, 0, 0, ALL}});
        add(s.C * s.width, RELU, 4, 0, {{4, -1, 0, ALL}, {4, 0, -1, ALL}, {4, 0, 0, UP_TO}});
        add(s.C * F, 0, -1, 0, {{6, 0, 0, UP_TO}});
        for (Stream& z : streams) z.offset = numbers, numbers += z.depth * s.W * z.channels;
        fill(u), fill(E), fill(weights, 0.7), fill(biases);
        for (int64_t i = 0; i < u.n; i++) u[i] = (u[i] + 1) / 2;
        for (int64_t n = 0; n < s.N; n++) y[n] = n % classes;
        for (int64_t i = 0; i < x.n; i++)
            if (i % (D ? D : 1) < s.known) x[i] = int64_t((uniform() + 1) / 2 * double(s.L));
        copy(streams, stream_table), copy(layers, layer_table), copy(taps, tap_table);
    }
    template <class Row> static void copy(const std::vector<Row>& rows, Array<Row>& table) {
        if (int64_t(rows.size()) != table.n) stop(1, "a table of %lld rows", (long long)rows.size());
        for (int64_t i = 0; i < table.n; i++) table[i] = rows[i];
    }
    static std::string named(const Case& s) {
        auto of = [](int64_t n, const char* things) { return ", " + std::to_string(n) + things; };
        return of(s.N, "x") + std::to_string(s.H) + "x" + std::to_string(s.W) + of(s.C, " colours") +
               of(s.L, " levels") + of(s.K, " logistics") + of(s.width, " channels");
    }
    Sizes sizes() const {
        return {s.known, s.N, s.H, s.W, s.C, s.L, M, s.K, int64_t(layers.size()), numbers, widest, bias_columns};
    }
    int64_t count() const {    // of weights
        int64_t in = s.C * M, wide = 2 * s.C * s.width;
        return wide * 3 * in + wide * (2 * in + wide) + s.C * s.width * 3 * s.C * s.width + s.C * F * s.C * s.width;
    }
    void add(int64_t outputs, int64_t act, int64_t residual, int64_t rows, const std::vector<Tap>& seen) {
        int64_t a = int64_t(layers.size()), begin = int64_t(taps.size());
        for (Tap tap : seen) {
            tap.weight = weight, weight += streams[tap.stream].channels * outputs;
            taps.push_back(tap);
        }
        Layer layer = {};
        layer.outputs = outputs, layer.act = act, layer.residual = residual, layer.rows = rows;
        layer.raw = 2 * a + 1, layer.after = act ? 2 * a + 2 : -1;
        layer.bias = bias_columns, layer.tap = begin, layer.taps_end = int64_t(taps.size());
        layers.push_back(layer);
        int64_t after = act == GATE ? outputs / 2 : outputs;
        streams.push_back({outputs, 2, 0}), streams.push_back({act ? after : 0, 2, 0});
        bias_columns += outputs, widest = outputs > widest ? outputs : widest;
    }

    // Every layer over the whole image, in double; then the numbers from the logits that the kernel gave
    void check(double precision) {
        for (int64_t n = 0; n < s.N; n++) {
            std::vector<std::vector<double>> z;
            for (Stream& stream : streams) z.emplace_back(s.H * s.W * stream.channels);
            for (int64_t d = 0; d < D; d++)
                for (int64_t k = 0; k < M; k++) z[0][d * M + k] = double(E[x[n * D + d] * M + k]);
            for (Layer& a : layers)
                for (int64_t i = 0; i < s.H; i++)
                    for (int64_t j = 0; j < s.W; j++) at_pixel(a, i, j, biases.p + y[n] * bias_columns + a.bias, z);
            const std::vector<double>& wanted = z[layers.back().raw];
            for (int64_t d = 0; d < D; d++) {
                const T* l = logits.p + (n * D + d) * F;
                double allowed = 3000 * double(widest) * precision;
                for (int64_t f = 0; f < F; f++)
                    expect(what + " logit", (n * D + d) * F + f, l[f], wanted[d * F + f], allowed);
                double drawn_now = double(drawn(l, u[n * D + d], s.L, s.K));
                if (d >= s.known) expect(what + " number", n * D + d, double(x[n * D + d]), drawn_now, 0);
            }
        }
    }
    void at_pixel(const Layer& a, int64_t i, int64_t j, const T* bias, std::vector<std::vector<double>>& z) {
        std::vector<double> sum(a.outputs);
        for (int64_t o = 0; o < a.outputs; o++) {
            sum[o] = bias[o];
            for (int64_t t = a.tap; t < a.taps_end; t++) {
                const Tap& tap = taps[t];
                int64_t I = streams[tap.stream].channels;
                if (i + tap.di < 0 || j + tap.dj < 0 || j + tap.dj >= s.W) continue;
                const double* in = z[tap.stream].data() + ((i + tap.di) * s.W + j + tap.dj) * I;
                for (int64_t c = 0; c < I; c++) {
                    int64_t own = o * s.C / a.outputs, its = c * s.C / I;    // colours
                    if ((tap.sight == EARLIER && its >= own) || (tap.sight == UP_TO && its > own)) continue;
                    sum[o] += in[c] * double(weights[tap.weight + c * a.outputs + o]);
                }
            }
            if (a.residual >= 0) sum[o] += z[a.residual][(i * s.W + j) * a.outputs + o];
            z[a.raw][(i * s.W + j) * a.outputs + o] = sum[o];
            if (a.act == RELU) z[a.after][(i * s.W + j) * a.outputs + o] = sum[o] > 0 ? sum[o] : 0;
        }
        for (int64_t k = 0; a.act == GATE && k < a.outputs / 2; k++)
            z[a.after][(i * s.W + j) * a.outputs / 2 + k] = tanh(sum[2 * k]) / (1 + exp(-sum[2 * k + 1]));
    }
};
