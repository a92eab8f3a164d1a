// Drives csrc/nearest_code.cu: three rungs must give the index of the definition. Data: plain, ties, offsets, not
// finite.
#include "driver.h"
namespace {
#include "../nearest_code.cu"

enum Data { PLAIN,
            TIES,
            OFFSET,
            NOT_FINITE,
            KINDS };

template <class Z, class E> void drive(int z_dtype, int e_dtype, Data data, int64_t N, int64_t K, int64_t D,
                                       int64_t S) {
    std::string what = "dtypes " + std::to_string(z_dtype) + " " + std::to_string(e_dtype) + ", data " +
                       std::to_string(data) + ", " + std::to_string(N) + " rows, " + std::to_string(K) + " codes, D " +
                       std::to_string(D);
    Array<Z> z(N * D);
    Array<E> e(K * D);
    fill(z), fill(e);
    if (data == TIES)    // small integers, and every code twice
        for (int64_t i = 0; i < K * D; i++)
            e[i] = from_real<E>(i / D % 2 ? to_double(e[i - D]) : floor(2 * uniform()));
    if (data == TIES)
        for (int64_t i = 0; i < N * D; i++) z[i] = from_real<Z>(floor(2 * uniform()));
    if (data == OFFSET) {
        for (int64_t i = 0; i < N * D; i++) z[i] = from_real<Z>(1000 + to_double(z[i]));
        for (int64_t i = 0; i < K * D; i++) e[i] = from_real<E>(1000 + to_double(e[i]));
    }
    if (data == NOT_FINITE) {
        z[0] = from_real<Z>(NAN), z[N * D - 1] = from_real<Z>(INFINITY);
        e[0] = from_real<E>(-INFINITY), e[K * D - 1] = from_real<E>(NAN);
    }

    std::vector<int64_t> want(N);
    for (int64_t n = 0; n < N; n++) {
        double lowest = INFINITY;
        for (int64_t k = 0; k < K; k++) {
            double sum = 0;
            for (int64_t d = 0; d < D; d++) {
                double t = to_double(z[n * D + d]) - to_double(e[k * D + d]);
                sum += t * t;
            }
            if (sum < lowest) lowest = sum, want[n] = k;
        }
    }
    for (int rung = 0; rung < 3; rung++) {
        Array<int64_t> index(N), survivors(N);
        Array<char> workspace(rung ? nearest_code_workspace(rung == 2, N, K, D, S) : 0);
        auto search = rung == 0 ? nearest_code_naive : (rung == 1 ? nearest_code_tiled : nearest_code_tensor_core);
        run(what, search(z_dtype, e_dtype, z.p, e.p, index.p, N, K, D, workspace.p, S, nullptr));
        for (int64_t n = 0; n < N; n++)
            expect(what + ", rung " + std::to_string(rung), n, double(index[n]), double(want[n]), 0);
        if (rung) nearest_code_effort(rung == 2, workspace.p, survivors.p, N, K, D, S);
        for (int64_t n = 0; rung && n < N; n++)
            if (survivors[n] < -1 || survivors[n] > K)
                stop(1, "%s: %lld survivors", what.c_str(), (long long)survivors[n]);
    }
}
}    // namespace

int main() {
    each_dtype([&](auto z, int z_dtype, const std::string&, double) {
        each_dtype([&](auto e, int e_dtype, const std::string&, double) {
            using Z = decltype(z);
            using E = decltype(e);
            drive<Z, E>(z_dtype, e_dtype, Data((z_dtype + e_dtype) % KINDS), 5, 9, 3, 1);
            if (z_dtype == e_dtype)
                drive<Z, E>(z_dtype, e_dtype, Data(z_dtype % KINDS), 130, 140, 33, 2);
        });
    });
    for (int data = 0; data < KINDS; data++) {
        drive<float, float>(0, 0, Data(data), 20, 257, 64, 3);
        drive<float, float>(0, 0, Data(data), 1, 1, 1, 1);
    }
    for (int64_t D : {100, 160})    // rows that stay while codes pass, and those that come with each tile
        drive<float, float>(0, 0, Data(0), 20, 257, D, 1);
    stop(0, "nearest_code: all right");
}
