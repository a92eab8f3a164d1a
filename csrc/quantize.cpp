// Vector quantisation on a CPU after the search for the nearest code: z_q, the loss, and both gradients.
// Room: kernels/quantize.py
//
// A task is some rows of z_q and the loss, or of dz. de is a sum over the rows of each code, of tasks as those of
// csrc/cpu/rows_of_codes.h. Sums run in double, in an order that depends on the data alone: results have the same bits
// for any number of threads and on every instruction set. An index outside 0 .. K-1 reads no code: z_q and loss of its
// row are 0, and it adds nothing to dz and de.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include "cpu/numbers.h"
#include "cpu/rows_of_codes.h"

namespace {

template <class T> struct Codes {
    const T *z, *e;          // (N, D), (K, D)
    const int64_t* index;    // (N)
    double beta;
    int64_t N, K, D;

    const T* of_row(int64_t n) const {    // its code, or null
        return index[n] >= 0 && index[n] < K ? e + index[n] * D : nullptr;
    }
};

template <class T> struct Step : Codes<T> {
    T *z_q, *loss;    // (N, D), (N)
};

template <class T> struct GradientOfZ : Codes<T> {
    const T *dz_q, *dloss;    // (N, D), (N)
    T* dz;                    // (N, D)
};

template <class T> struct GradientOfE : RowsOfCodes<T> {    // its total is de
    const T *e, *dloss;    // (K, D), (N)
};

}    // namespace

#define EACH_SET "../quantize.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the arithmetic, read by csrc/cpu/each_set.h for each instruction set ----------------------------
#include "cpu/row_sums.h"
#include "cpu/rows_of_codes.h"

// loss = |sg[z] - e|^2 + beta |z - sg[e]|^2,  in value (1 + beta) |z - e|^2
template <class T> static void step(const Step<T>& p, int64_t n0, int64_t n1) {
    for (int64_t n = n0; n < n1; n++) {
        const T *z = p.z + n * p.D, *e = p.of_row(n);
        T* z_q = p.z_q + n * p.D;
        if (!e) {
            std::fill(z_q, z_q + p.D, T(0)), p.loss[n] = 0;
            continue;
        }
        RowSums<T> squares;
        each_of_sums<T>(0, p.D, [&](int j, int64_t d, int64_t count) {
            const vec<T> code = load(e + d, count);
            store(z_q + d, code, count);
            squares.add_term(j, [](auto z, auto e) { return (z - e) * (z - e); }, load(z + d, count), code);
        });
        const RowSum<T> square = squares.total_of_all();
        p.loss[n] = T((1 + p.beta) * (square.high + square.low));
    }
}

// dz = dz_q + beta d|z - e|^2/dz dloss
template <class T> static void gradient_of_z(const GradientOfZ<T>& p, int64_t n0, int64_t n1) {
    for (int64_t n = n0; n < n1; n++) {
        const T *z = p.z + n * p.D, *dz_q = p.dz_q + n * p.D, *e = p.of_row(n), dloss = p.dloss[n];
        T* dz = p.dz + n * p.D;
        if (!e) {
            std::copy(dz_q, dz_q + p.D, dz);
            continue;
        }
        each_vector<T>(p.D, [&](int64_t d, int64_t count) {
            const vec<T> pull = T(2 * p.beta) * (load(z + d, count) - load(e + d, count)) * dloss;
            store(dz + d, load(dz_q + d, count) + pull, count);
        });
    }
}

// de_k = sum of 2 (e_k - z_n) dloss_n
template <class T> static void gradient_of_e(const GradientOfE<T>& p, int64_t k0, int64_t k1, int64_t d0, int64_t d1) {
    add_codes(p, k0, k1, d0, d1, [&](int64_t k, int64_t n, int64_t d, auto at) {
        return 2 * (at(p.e + k * p.D + d) - at(p.z + n * p.D + d)) * double(p.dloss[n]);
    });
}

#else    // ---- the tasks, and the C functions that Python calls -----------------------------------------------------
namespace {

// work(p, n0, n1) for all rows
template <class P> void each_rows(const P& p, int threads, void (*work)(const P&, int64_t n0, int64_t n1)) {
    const int64_t rows = rows_of_a_task(p.D);
    parallel(ceil_div(p.N, rows), worth_waking(threads, p.N * p.D, 0.3),
             [&](int64_t task, int) { work(p, task * rows, std::min(p.N, (task + 1) * rows)); });
}

inline bool wrong(int64_t N, int64_t K, int64_t D, int threads) { return N < 0 || K < 1 || D < 0 || threads < 1; }

}    // namespace

// dtype: 0 float32, 3 float64, of all but the index. All return 0, or 1 for a bad argument.
extern "C" int quantize_forward_cpu(int dtype, const void* z, const void* e, const void* index, void* z_q, void* loss,
                                    double beta, int64_t N, int64_t K, int64_t D, int threads) {
    if (wrong(N, K, D, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const Codes<T> codes = {(const T*)z, (const T*)e, (const int64_t*)index, beta, N, K, D};
        each_rows(Step<T>{codes, (T*)z_q, (T*)loss}, threads, BEST(step<T>));
    });
}

extern "C" int quantize_dz_cpu(int dtype, const void* dz_q, const void* dloss, const void* z, const void* e,
                               const void* index, void* dz, double beta, int64_t N, int64_t K, int64_t D,
                               int threads) {
    if (wrong(N, K, D, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const Codes<T> codes = {(const T*)z, (const T*)e, (const int64_t*)index, beta, N, K, D};
        const GradientOfZ<T> p = {codes, (const T*)dz_q, (const T*)dloss, (T*)dz};
        each_rows(p, threads, BEST(gradient_of_z<T>));
    });
}

// Whether `space` has K numbers beside N: where both take no more than one array like z in float
static bool counted(int64_t N, int64_t K, int64_t D) { return 2 * (N + K) <= N * D || N > UINT32_MAX; }

// Bytes of `space`: of any number of threads
extern "C" int64_t quantize_de_cpu_workspace(int64_t N, int64_t K, int64_t D, int) {
    return (N + (counted(N, K, D) ? K : 0)) * int64_t(sizeof(int64_t));
}

extern "C" int quantize_de_cpu(int dtype, const void* dloss, const void* z, const void* e, const void* index, void* de,
                               void* space, int64_t N, int64_t K, int64_t D, int threads) {
    if (wrong(N, K, D, threads)) return 1;
    if (D == 0) return 0;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        int64_t* order = (int64_t*)space;
        const auto rows = counted(N, K, D)
                              ? sorted((const T*)z, (const int64_t*)index, order, order + N, (T*)de, N, K, D)
                              : sorted((const T*)z, (const int64_t*)index, order, (T*)de, N, K, D);
        const GradientOfE<T> p = {rows, (const T*)e, (const T*)dloss};
        const auto add = BEST(gradient_of_e<T>);
        each_group(p, threads, [&](int64_t k0, int64_t k1, int64_t d0, int64_t d1) { add(p, k0, k1, d0, d1); });
    });
}
#endif
