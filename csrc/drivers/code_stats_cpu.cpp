// Drives csrc/code_stats.cpp, the CPU's own sums of the rows of each code, with one thread and with three, on every
// instruction set that this processor has: empty codes, indices out of range, columns around the edges of a strip.
#include <algorithm>
#include "driver.h"

extern "C" int code_stats_cpu(int dtype, const void* z, const void* index, void* count, void* total, void* order,
                              int64_t N, int64_t K, int64_t D, int threads);

namespace {

template <class T>
void drive(int dtype, const std::string& set, double precision, int64_t N, int64_t K, int64_t D, int threads) {
    std::string what = set + " " + std::to_string(N) + "x" + std::to_string(D) + ", " + std::to_string(K) + " codes, " +
                       std::to_string(threads) + " threads";
    Array<T> z(N * D), total(K * D);
    Array<int64_t> index(N), count(K), order(N);
    fill(z, 3);
    for (int64_t n = 0; n < N; n++) index[n] = int64_t((uniform() + 1) / 2 * K) * 2 % K;    // some codes get nothing
    for (int64_t n = 10; n < N; n += 11) index[n] = n % 2 ? -1 : K;                         // out of range
    run(what, code_stats_cpu(dtype, z.p, index.p, count.p, total.p, order.p, N, K, D, threads));
    for (int64_t k = 0; k < K; k++) {
        expect(what + " count", k, double(count[k]), double(std::count(index.p, index.p + N, k)), 0);
        for (int64_t d = 0; d < D; d++) {
            double sum = 0, size = 0;
            for (int64_t n = 0; n < N; n++)
                if (index[n] == k) sum += z[n * D + d], size += fabs(z[n * D + d]);
            expect(what + " total", k * D + d, total[k * D + d], sum, precision * size);
        }
    }
}
}    // namespace

int main() {
    const int64_t few[][3] = {{0, 3, 4}, {1, 1, 1}, {50, 7, 5}, {200, 16, 32}, {40, 3, 79}, {9, 3, 0}};
    const int64_t many[][3] = {{700, 1, 70}, {900, 400, 12}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        auto each = [&](int64_t N, int64_t K, int64_t D) {
            for (int threads : {1, 3}) {
                drive<float>(0, std::string(set) + " float32", 0x1p-24, N, K, D, threads);
                drive<double>(3, std::string(set) + " float64", 0x1p-48, N, K, D, threads);
            }
        };
        for (auto& s : few) each(s[0], s[1], s[2]);
        for (auto& s : many) each(s[0], s[1], s[2]);
    }
    stop(0, "code_stats_cpu: all right");
}
