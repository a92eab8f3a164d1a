// Drives csrc/nade.cpp, the CPU's own NADE, with one thread and with three, on every instruction set that this
// processor has.
#include "nade_walk.h"

extern "C" int64_t nade_cpu_workspace(int dtype, int64_t N, int64_t H, int threads);
extern "C" int64_t nade_backward_cpu_workspace(int dtype, int64_t D, int64_t H, int threads);
extern "C" int nade_cpu(int dtype, const void* u, void* x, int64_t known, const void* W, const void* V, const void* b,
                        const void* c, void* logits, void* workspace, int64_t N, int64_t D, int64_t H, int threads);
extern "C" int nade_backward_cpu(int dtype, const void* dl, const void* x, const void* W, const void* V, const void* c,
                                 void* dW, void* dV, void* dc, void* workspace, int64_t N, int64_t D, int64_t H,
                                 int threads);

namespace {

template <class T>
void drive(int dtype, const std::string& type, double precision, int64_t N, int64_t D, int64_t H, int64_t known,
           int threads) {
    Nade<T> e(type + ", " + std::to_string(threads) + " threads", precision, N, D, H, known);
    Array<char> forth(nade_cpu_workspace(dtype, N, H, threads));
    Array<char> back(nade_backward_cpu_workspace(dtype, D, H, threads));
    const T* u = known < D ? e.u.p : nullptr;
    run(e.what, nade_cpu(dtype, u, e.x.p, known, e.W.p, e.V.p, e.b.p, e.c.p, e.logits.p, forth.p, N, D, H, threads));
    run(e.what,
        nade_backward_cpu(dtype, e.dl.p, e.x.p, e.W.p, e.V.p, e.c.p, e.dW.p, e.dV.p, e.dc.p, back.p, N, D, H, threads));
    e.check(true, 8 * precision);    // a sigmoid is two roundings and a polynomial
}
}    // namespace

int main() {
    // Around 4 to 16 lanes, tiles of up to 4 vectors of units, tasks of 16 rows in runs of 8 and 3, groups of 32 rows,
    // chunks of 32 pixels
    const int64_t shapes[][4] = {{0, 3, 5, 3}, {1, 0, 4, 0}, {1, 1, 1, 0}, {2, 3, 0, 1},    // sizes 0 and 1
                                 {3, 31, 7, 31},
                                 {12, 32, 16, 0},
                                 {16, 33, 15, 4},
                                 {17, 9, 65, 9},    // edges of chunks, tasks and vectors
                                 {33, 64, 17, 32},
                                 {50, 5, 130, 2},
                                 {6, 65, 48, 65},
                                 {65, 2, 3, 1}};
    for (const char* set : {"avx512", "avx2", "portable"}) {
        setenv("GENMINI_CPU", set, 1);
        for (auto& s : shapes)
            for (int threads : {1, 3}) {
                drive<float>(0, std::string(set) + " float32", 0x1p-23, s[0], s[1], s[2], s[3], threads);
                drive<double>(3, std::string(set) + " float64", 0x1p-50, s[0], s[1], s[2], s[3], threads);
            }
    }
    stop(0, "nade_cpu: all right");
}
