// Drives csrc/quantize.cpp, the CPU's own step and its two gradients, with one thread and with three, on every
// instruction set that this processor has: indices out of range, columns around the edges of a vector and of a strip.
#include "quantize_walk.h"

extern "C" int quantize_forward_cpu(int dtype, const void* z, const void* e, const void* index, void* z_q, void* loss,
                                    double beta, int64_t N, int64_t K, int64_t D, int threads);
extern "C" int quantize_dz_cpu(int dtype, const void* dz_q, const void* dloss, const void* z, const void* e,
                               const void* index, void* dz, double beta, int64_t N, int64_t K, int64_t D, int threads);
extern "C" int64_t quantize_de_cpu_workspace(int64_t N, int64_t K, int64_t D, int threads);
extern "C" int quantize_de_cpu(int dtype, const void* dloss, const void* z, const void* e, const void* index, void* de,
                               void* space, int64_t N, int64_t K, int64_t D, int threads);

namespace {

template <class T>
void drive(int dtype, const std::string& set, double precision, int64_t N, int64_t K, int64_t D, int threads) {
    std::string what = set + " " + std::to_string(N) + "x" + std::to_string(D) + ", " + std::to_string(K) + " codes, " +
                       std::to_string(threads) + " threads";
    Walk<T, T, T> w(N, K, D);
    Array<char> space(quantize_de_cpu_workspace(N, K, D, threads));
    const void *z = w.z.p, *e = w.e.p, *index = w.index.p;
    run(what, quantize_forward_cpu(dtype, z, e, index, w.z_q.p, w.loss.p, w.beta, N, K, D, threads));
    run(what, quantize_dz_cpu(dtype, w.dz_q.p, w.dloss.p, z, e, index, w.dz.p, w.beta, N, K, D, threads));
    run(what, quantize_de_cpu(dtype, w.dloss.p, z, e, index, w.de.p, space.p, N, K, D, threads));
    w.expect_all(what, precision, precision);
}
}    // namespace

int main() {
    const int64_t shapes[][3] = {
        {0, 2, 3},
        {1, 1, 1},
        {19, 5, 7},
        {70, 3, 40},
        {900, 400, 33},
        {5, 2, 0},
        {60, 90, 1},
        {2, 99, 3},
    };
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (auto& s : shapes)
            for (int threads : {1, 3}) {
                drive<float>(0, std::string(set) + " float32", 0x1p-22, s[0], s[1], s[2], threads);
                drive<double>(3, std::string(set) + " float64", 0x1p-48, s[0], s[1], s[2], threads);
            }
    }
    stop(0, "quantize_cpu: all right");
}
