// Drives csrc/nearest_code.cpp, the CPU's own search, with one thread and with three, on every instruction set that
// this processor has.
#include "driver.h"

extern "C" int64_t nearest_code_cpu_workspace(int z_dtype, int e_dtype, int64_t N, int64_t K, int64_t D,
                                              int threads);
extern "C" const char* nearest_code_cpu_info();
extern "C" int nearest_code_cpu(int z_dtype, int e_dtype, const void* z, const void* e, int64_t* index, int64_t N,
                                int64_t K, int64_t D, void* workspace, int threads);

namespace {

enum Data { PLAIN,
            TIES,
            OFFSET,
            NOT_FINITE,
            KINDS };

template <class Z, class E> void drive(int z_dtype, int e_dtype, Data data, int64_t N, int64_t K, int64_t D,
                                       int threads) {
    std::string what = "dtypes " + std::to_string(z_dtype) + " " + std::to_string(e_dtype) + ", data " +
                       std::to_string(data) + ", " + std::to_string(N) + " rows, " + std::to_string(K) + " codes, D " +
                       std::to_string(D);
    Array<Z> z(N * D);
    Array<E> e(K * D);
    Array<int64_t> index(N);
    Array<char> workspace(nearest_code_cpu_workspace(z_dtype, e_dtype, N, K, D, threads));
    auto number = [&] { return data == TIES ? floor(2 * uniform()) : uniform() + (data == OFFSET ? 1000 : 0); };
    for (int64_t i = 0; i < N * D; i++) z[i] = from_real<Z>(number());
    for (int64_t i = 0; i < K * D; i++)
        e[i] = from_real<E>(data == TIES && i / D % 2 ? to_double(e[i - D]) : number());
    if (data == NOT_FINITE && z.n > 0) {
        z[0] = from_real<Z>(NAN), z[N * D - 1] = from_real<Z>(INFINITY);
        e[0] = from_real<E>(-INFINITY), e[K * D - 1] = from_real<E>(NAN);
    }
    int code = nearest_code_cpu(z_dtype, e_dtype, z.p, e.p, index.p, N, K, D, workspace.p, threads);
    if (code) stop(2, "%s: code %d", what.c_str(), code);
    for (int64_t n = 0; n < N; n++) {
        double lowest = INFINITY;
        int64_t want = 0;
        for (int64_t k = 0; k < K; k++) {
            double sum = 0;
            for (int64_t d = 0; d < D; d++) {
                double t = to_double(z[n * D + d]) - to_double(e[k * D + d]);
                sum += t * t;
            }
            if (sum < lowest) lowest = sum, want = k;
        }
        expect(what, n, double(index[n]), double(want), 0);
    }
}
}    // namespace

int main() {
    each_dtype([&](auto z, int z_dtype, const std::string&, double) {
        each_dtype([&](auto e, int e_dtype, const std::string&, double) {
            for (int data = 0; data < KINDS; data++)
                for (int threads : {1, 3}) {
                    drive<decltype(z), decltype(e)>(z_dtype, e_dtype, Data(data), 7, 5, 3, threads);
                    drive<decltype(z), decltype(e)>(z_dtype, e_dtype, Data(data), 70, 90, 33, threads);
                    drive<decltype(z), decltype(e)>(z_dtype, e_dtype, Data(data), 70, 270, 33, threads);
                }
        });
    });
    for (const char* set : {"portable", "avx2", "avx512"}) {
        setenv("GENMINI_CPU", set, 1);
        for (int data = 0; data < KINDS; data++)
            for (int64_t N : {1, 70, 1000})
                for (int64_t D : {5, 33}) drive<float, float>(0, 0, Data(data), N, 300, D, 3);
    }
    unsetenv("GENMINI_CPU");
    for (int data = 0; data < KINDS; data++) drive<float, float>(0, 0, Data(data), 1000, 300, 64, 3);
    drive<float, float>(0, 0, PLAIN, 0, 4, 5, 2), drive<float, float>(0, 0, PLAIN, 3, 4, 0, 2);
    stop(0, "nearest_code_cpu (%s): all right", nearest_code_cpu_info());
}
