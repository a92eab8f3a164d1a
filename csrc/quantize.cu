// Vector quantisation after the search for the nearest code: z_q, the loss, and both gradients.
// Room: kernels/quantize.py
//
//   rung naive      a thread a row for z_q and loss, 32 sectors a request, where 4 could hold it; a thread an element
//                   of dz, which divides to find its row, and of de, which reads the index of every row
//   rung fused      a warp a row for z_q and loss; a lane 16 bytes of a row of dz, without a division: a quarter of the
//                   requests; de from the rows, sorted by their code: one run a code
//
// z (N, D), e (K, D), index (N,), z_q and dz like z, de like e, loss (N,) of type R: float, or double if z or e is
// double. Sums run in double, in an order that depends on the data alone; there is no atomic addition. An index outside
// 0 .. K-1 reads no code: z_q and loss of its row are 0, and it adds nothing to dz and de.

#include "segments.h"
#include "wide.h"

constexpr int THREADS = 256;

// ---- rung naive -----------------------------------------------------------------------------------------------------

// A thread owns row n.   loss = |sg[z] - e|^2 + beta |z - sg[e]|^2,  in value (1 + beta) |z - e|^2
template <class Z, class E, class R>
__global__ void forward_naive(const Z* z, const E* e, const int64_t* index, Z* z_q, R* loss, double beta, int64_t N,
                              int64_t K, int64_t D) {
    int64_t n = blockIdx.x * int64_t(THREADS) + threadIdx.x;
    if (n >= N) return;
    int64_t k = index[n];
    bool inside = k >= 0 && k < K;
    double square = 0;
    for (int64_t d = 0; d < D; d++) {
        double code = inside ? to_double(e[k * D + d]) : 0;
        double t = inside ? to_double(z[n * D + d]) - code : 0;
        square += t * t;
        z_q[n * D + d] = from_real<Z>(code);
    }
    loss[n] = R(square + beta * square);
}

// A thread owns element (n, d).   dz = dz_q + beta d|z - e|^2/dz dloss
template <class Z, class E, class R>
__global__ void gradient_of_z_naive(const Z* dz_q, const R* dloss, const Z* z, const E* e, const int64_t* index, Z* dz,
                                    double beta, int64_t N, int64_t K, int64_t D) {
    int64_t i = blockIdx.x * int64_t(THREADS) + threadIdx.x, n = i / D;
    if (n >= N) return;
    int64_t k = index[n];
    R pull = 0;
    if (k >= 0 && k < K) pull = R(2 * beta) * (R(to_double(z[i])) - R(to_double(e[k * D + i % D]))) * dloss[n];
    dz[i] = from_real<Z>(R(to_double(dz_q[i])) + pull);
}

// A thread owns element (k, d), and reads the index of every row.   de_k = sum of 2 (e_k - z_n) dloss_n
template <class Z, class E, class R>
__global__ void gradient_of_e_naive(const R* dloss, const Z* z, const E* e, const int64_t* index, E* de, int64_t N,
                                    int64_t K, int64_t D) {
    int64_t i = blockIdx.x * int64_t(THREADS) + threadIdx.x, k = i / D, d = i % D;
    if (k >= K) return;
    double sum = 0, code = to_double(e[i]);
    for (int64_t n = 0; n < N; n++)
        if (index[n] == k) sum += 2 * (code - to_double(z[n * D + d])) * double(dloss[n]);
    de[i] = from_real<E>(sum);
}

// ---- rung fused -----------------------------------------------------------------------------------------------------

// A warp owns row n
template <class Z, class E, class R>
__global__ void forward_fused(const Z* z, const E* e, const int64_t* index, Z* z_q, R* loss, double beta, int64_t N,
                              int64_t K, int64_t D) {
    int64_t n = (blockIdx.x * int64_t(THREADS) + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (n >= N) return;
    int64_t k = index[n];
    bool inside = k >= 0 && k < K;
    double square = 0;
    for (int64_t d = lane; d < D; d += 32) {
        double code = inside ? to_double(e[k * D + d]) : 0;
        double t = inside ? to_double(z[n * D + d]) - code : 0;
        square += t * t;
        z_q[n * D + d] = from_real<Z>(code);
    }
    for (int offset = 16; offset > 0; offset /= 2) square += __shfl_xor_sync(0xffffffffu, square, offset);
    if (lane == 0) loss[n] = R(square + beta * square);
}

// Row n belongs to 2^g neighbouring lanes, V numbers at a time: no division, and its index is read once.
// (64-bit divisions have no instruction: each is a loop or a call.)
template <class Z, class E, class R, int V>
__global__ void gradient_of_z_wide(const Z* dz_q, const R* dloss, const Z* z, const E* e, const int64_t* index, Z* dz,
                                   double beta, int64_t N, int64_t K, int64_t D, int g) {
    int64_t n = blockIdx.x * int64_t(THREADS >> g) + (threadIdx.x >> g);
    if (n >= N) return;
    int64_t k = index[n];
    bool inside = k >= 0 && k < K;
    R dl = dloss[n];
    e += inside ? k * D : 0, z += n * D, dz_q += n * D, dz += n * D;
    for (int64_t d = int64_t(threadIdx.x & ((1 << g) - 1)) * V; d < D; d += V << g) {
        Wide<Z, V> v = *(const Wide<Z, V>*)(dz_q + d), zd = {};
        Wide<E, V> ed = {};
        if (inside) zd = *(const Wide<Z, V>*)(z + d), ed = *(const Wide<E, V>*)(e + d);
        for (int i = 0; i < V; i++) {
            R pull = inside ? R(2 * beta) * (R(to_double(zd.v[i])) - R(to_double(ed.v[i]))) * dl : R(0);
            v.v[i] = from_real<Z>(R(to_double(v.v[i])) + pull);
        }
        *(Wide<Z, V>*)(dz + d) = v;
    }
}

// de_k = sum of 2 (e_k - z_n) dloss_n;  csrc/segments.h says which block and warp adds which rows
template <class Z, class E, class R>
__global__ void gradient_of_e(const R* dloss, const Z* z, const E* e, const int64_t* order, const int64_t* start, E* de,
                              int64_t K, int64_t D, int codes) {
    add_rows(
        order, start, K, D, codes,
        [&](int64_t k, int64_t n, int64_t d) {
            return 2 * (to_double(e[k * D + d]) - to_double(z[n * D + d])) * double(dloss[n]);
        },
        [&](int64_t k, int64_t d, double sum) { de[k * D + d] = from_real<E>(sum); });
}

// ---- launchers ------------------------------------------------------------------------------------------------------

#define TYPES               \
    using Z = decltype(z0); \
    using E = decltype(e0); \
    using R = real<Z, E>    // of the loss

extern "C" int quantize_forward_naive(int z_dtype, int e_dtype, const void* z, const void* e, const int64_t* index,
                                      void* z_q, void* loss, double beta, int64_t N, int64_t K, int64_t D,
                                      void* stream) {
    return with_dtypes(z_dtype, e_dtype, [&](auto z0, auto e0) {
        TYPES;
        return launch(forward_naive<Z, E, R>, dim3(ceil_div(N, THREADS)), dim3(THREADS), 0, stream, (const Z*)z,
                      (const E*)e, index, (Z*)z_q, (R*)loss, beta, N, K, D);
    });
}

extern "C" int quantize_forward_fused(int z_dtype, int e_dtype, const void* z, const void* e, const int64_t* index,
                                      void* z_q, void* loss, double beta, int64_t N, int64_t K, int64_t D,
                                      void* stream) {
    return with_dtypes(z_dtype, e_dtype, [&](auto z0, auto e0) {
        TYPES;
        return launch(forward_fused<Z, E, R>, dim3(ceil_div(N, THREADS / 32)), dim3(THREADS), 0, stream, (const Z*)z,
                      (const E*)e, index, (Z*)z_q, (R*)loss, beta, N, K, D);
    });
}

extern "C" int quantize_dz_naive(int z_dtype, int e_dtype, const void* dz_q, const void* dloss, const void* z,
                                 const void* e, const int64_t* index, void* dz, double beta, int64_t N, int64_t K,
                                 int64_t D, void* stream) {
    return with_dtypes(z_dtype, e_dtype, [&](auto z0, auto e0) {
        TYPES;
        return launch(gradient_of_z_naive<Z, E, R>, dim3(ceil_div(N * D, THREADS)), dim3(THREADS), 0, stream,
                      (const Z*)dz_q, (const R*)dloss, (const Z*)z, (const E*)e, index, (Z*)dz, beta, N, K, D);
    });
}

extern "C" int quantize_dz_fused(int z_dtype, int e_dtype, const void* dz_q, const void* dloss, const void* z,
                                 const void* e, const int64_t* index, void* dz, double beta, int64_t N, int64_t K,
                                 int64_t D, void* stream) {
    return with_dtypes(z_dtype, e_dtype, [&](auto z0, auto e0) {
        TYPES;
        constexpr int V = 16 / sizeof(Z);
        if (!aligned<Z>(D, {dz_q, z, e, dz}))    // also of e: rows of V numbers of its type
            return quantize_dz_naive(z_dtype, e_dtype, dz_q, dloss, z, e, index, dz, beta, N, K, D, stream);
        int g = 0;    // at most a warp a row
        while (g < 5 && V << g < D) g++;
        return launch(gradient_of_z_wide<Z, E, R, V>, dim3(ceil_div(N, THREADS >> g)), dim3(THREADS), 0, stream,
                      (const Z*)dz_q, (const R*)dloss, (const Z*)z, (const E*)e, index, (Z*)dz, beta, N, K, D, g);
    });
}

extern "C" int quantize_de_naive(int z_dtype, int e_dtype, const void* dloss, const void* z, const void* e,
                                 const int64_t* index, void* de, int64_t N, int64_t K, int64_t D, void* stream) {
    return with_dtypes(z_dtype, e_dtype, [&](auto z0, auto e0) {
        TYPES;
        return launch(gradient_of_e_naive<Z, E, R>, dim3(ceil_div(K * D, THREADS)), dim3(THREADS), 0, stream,
                      (const R*)dloss, (const Z*)z, (const E*)e, index, (E*)de, N, K, D);
    });
}

extern "C" int quantize_de_fused(int z_dtype, int e_dtype, const void* dloss, const void* z, const void* e,
                                 const int64_t* order, const int64_t* start, void* de, int64_t K, int64_t D,
                                 void* stream) {
    return with_dtypes(z_dtype, e_dtype, [&](auto z0, auto e0) {
        TYPES;
        return launch(gradient_of_e<Z, E, R>, segment_blocks(K, D), dim3(32 * WARPS), 0, stream, (const R*)dloss,
                      (const Z*)z, (const E*)e, order, start, (E*)de, K, D, codes_of_block(K, D));
    });
}
