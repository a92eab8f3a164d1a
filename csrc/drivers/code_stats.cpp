// Drives csrc/code_stats.cu: both rungs, four dtypes; empty codes, indices out of range, columns around the edge of a
// block.
#include <algorithm>
#include <numeric>
#include "driver.h"
namespace {
#include "../code_stats.cu"

template <class T> void drive(int dtype, const std::string& type, int64_t N, int64_t K, int64_t D, bool segments) {
    using R = real<T>;
    std::string what = type + " " + std::to_string(N) + "x" + std::to_string(D) + ", " + std::to_string(K) + " codes";
    what += segments ? " segments" : " naive";
    Array<T> z(N * D);
    Array<int64_t> index(N), order(N), start(K + 1), count(K);
    Array<R> total(K * D);
    fill(z, 3);
    for (int64_t n = 0; n < N; n++) index[n] = int64_t((uniform() + 1) / 2 * K) * 2 % K;    // some codes get nothing
    for (int64_t n = 10; n < N; n += 11) index[n] = n % 2 ? -1 : K;                         // out of range
    for (int64_t n = 1; n < N && K > 1000; n += 2) index[n] = 5;                            // a long run
    std::iota(order.p, order.p + N, 0);
    std::stable_sort(order.p, order.p + N, [&](int64_t a, int64_t b) { return index[a] < index[b]; });
    for (int64_t k = 0; k <= K; k++) start[k] = std::count_if(index.p, index.p + N, [&](int64_t i) { return i < k; });

    if (segments) run(what, code_stats_segments(dtype, z.p, order.p, start.p, count.p, total.p, K, D, nullptr));
    else run(what, code_stats_naive(dtype, z.p, index.p, count.p, total.p, N, K, D, nullptr));
    for (int64_t k = 0; k < K; k++) {
        int64_t rows = std::count(index.p, index.p + N, k);
        expect(what + " count", k, double(count[k]), double(rows), 0);
        for (int64_t d = 0; d < D; d++) {
            double sum = 0, size = 0;
            for (int64_t n = 0; n < N; n++)
                if (index[n] == k) sum += to_double(z[n * D + d]), size += fabs(to_double(z[n * D + d]));
            expect(what + " total", k * D + d, total[k * D + d], sum, (sizeof(R) == 4 ? 0x1p-23 : 0x1p-48) * size);
        }
    }
}
}    // namespace

int main() {
    const int64_t shapes[][3] = {{0, 3, 4}, {1, 1, 1}, {50, 7, 5}, {200, 16, 32},    // whole blocks
                                 {130, 5, 33},
                                 {40, 3, 70},
                                 {9, 3, 0},
                                 {700, 2050, 1}};
    each_dtype([&](auto zero, int dtype, const std::string& name, double) {
        for (auto& shape : shapes)
            for (bool segments : {false, true})
                drive<decltype(zero)>(dtype, name, shape[0], shape[1], shape[2], segments);
    });
    stop(0, "code_stats: all right");
}
