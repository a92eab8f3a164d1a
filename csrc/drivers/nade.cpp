// Drives csrc/nade.cu: both rungs, the pass with known and with drawn pixels, the gradient; rows, units and chunks around every edge.
#include "driver.h"
namespace {
#include "../nade.cu"

// The walk as the equations write it, in double, for the x that stands there: logits and all h_d
void walk(const std::vector<uint8_t>& x, const std::vector<double>& W, const std::vector<double>& V, const std::vector<double>& b,
          const std::vector<double>& c, int64_t D, int64_t H, std::vector<double>& l, std::vector<double>& h) {
    std::vector<double> a = c;
    for (int64_t d = 0; d < D; d++) {
        l[d] = b[d];
        for (int64_t k = 0; k < H; k++) {
            h[d * H + k] = 1 / (1 + exp(-a[k]));
            l[d] += V[d * H + k] * h[d * H + k];
            if (x[d]) a[k] += W[d * H + k];
        }
    }
}

template <class T> std::vector<double> doubles(Array<T>& a) { return std::vector<double>(a.p, a.p + a.n); }

template <class T>
void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D, int64_t H, int64_t known, bool naive) {
    std::string what = type + " " + std::to_string(N) + "x" + std::to_string(D) + ", " + std::to_string(H) + " units";
    what += naive ? " naive" : " warp_rows";
    int64_t groups = N < 16 ? 1 : 3;
    Array<T> u(N * D), W(D * H), V(D * H), b(D), c(H), logits(N * D), a(N * H), dl(N * D), dW(D * H), dV(D * H), dc(H);
    Array<T> work(naive ? D * H : groups * (2 * D + 1) * H);
    Array<uint8_t> x(N * D);
    fill(u), fill(W), fill(V), fill(b), fill(c), fill(dl);
    for (int64_t i = 0; i < u.n; i++) u[i] = (u[i] + 1) / 2;
    for (int64_t i = 0; i < x.n; i++)
        if (i % D < known) x[i] = uniform() < 0;
    double close = 8 * precision * (4 + H) * (4 + double(D));

    auto pass = naive ? nade_naive : nade_warp_rows;
    run(what, pass(dtype, known < D ? u.p : nullptr, x.p, known, W.p, V.p, b.p, c.p, logits.p, a.p, N, D, H, nullptr));
    std::vector<double> wantW(D * H), wantV(D * H), wantc(H), w = doubles(W), v = doubles(V);
    for (int64_t n = 0; n < N; n++) {
        std::vector<uint8_t> row(x.p + n * D, x.p + (n + 1) * D);
        std::vector<double> l(D), h(D * H);
        walk(row, w, v, doubles(b), doubles(c), D, H, l, h);
        for (int64_t d = 0; d < D; d++) {
            expect(what + " logit", n * D + d, logits[n * D + d], l[d], close);
            if (d >= known) expect(what + " pixel", n * D + d, row[d], u[n * D + d] >= T(1) / (T(1) + exp(logits[n * D + d])), 0);
        }
        for (int64_t k = 0; k < H; k++) {
            double A = 0;
            for (int64_t d = D - 1; d >= 0; d--) {
                double s = h[d * H + k], g = dl[n * D + d];
                if (row[d]) wantW[d * H + k] += A;
                wantV[d * H + k] += g * s;
                A += g * v[d * H + k] * s * (1 - s);
            }
            wantc[k] += A;
        }
    }
    if (N == 0) return;    // the launcher in Python answers that
    auto backward = naive ? nade_backward_naive : nade_backward_warp_rows;
    run(what, backward(dtype, dl.p, x.p, W.p, V.p, c.p, dW.p, dV.p, dc.p, work.p, groups, N, D, H, nullptr));
    for (int64_t i = 0; i < D * H; i++) {
        expect(what + " dW", i, dW[i], wantW[i], close * N);
        expect(what + " dV", i, dV[i], wantV[i], close * N);
    }
    for (int64_t k = 0; k < H; k++) expect(what + " dc", k, dc[k], wantc[k], close * N);
}
}    // namespace

int main() {
    const int64_t shapes[][4] = {{0, 3, 5, 3}, {1, 0, 4, 0}, {1, 1, 1, 0}, {2, 3, 0, 1}, {5, 9, 31, 9}, {6, 17, 33, 4}, {19, 12, 40, 0}, {2, 5, 1030, 2}};
    for (auto& s : shapes)
        for (bool naive : {true, false}) {
            drive<float>(0, "float32", 0x1p-23, s[0], s[1], s[2], s[3], naive);
            drive<double>(3, "float64", 0x1p-50, s[0], s[1], s[2], s[3], naive);
        }
    stop(0, "nade: all right");
}
