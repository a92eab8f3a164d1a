// Exact nearest code: index_n = lowest k of minimal d_k.   Room: kernels/nearest_code.py   Proof: docs/exact-argmin.md
//
//   d_k = sum over d ascending of (double(z_nd) - double(e_kd))^2, each operation rounded to double,
//   with NaN counted as infinity
//
//   rung naive         one thread a row, the definition: lanes read z a row apart, in 32 sectors, where 4 could hold it
//   rung tiled         every (row, code) is screened in float32 from tiles in shared memory and registers: for
//                      N = K = 256 a twentieth of the requests of global memory. The codes that the error bound cannot
//                      exclude, a few, are scored again by the definition; so are all codes of a row for which the
//                      bound proves nothing
//   rung tensor_core   the same screen as a matrix product of fp16 vectors (cp.async, ldmatrix, mma.sync). Wavefronts
//                      of shared memory bind: rows stay there while codes pass, pieces of rows are exchanged so that
//                      no two lie in a bank, and a lane asks for the bound of one row
//
// z (N, D) and e (K, D) are contiguous, each of any dtype; index is (N,) int64. The N x K scores are never stored.
// Numbers in brackets, (1) to (9), are the inequalities of the proof that no nearest code is ever screened out.

#include <climits>
#include <type_traits>
#include "gpu.h"
#include "nearest_code_sieve.h"

// ---- the definition -------------------------------------------------------------------------------------------------

// z[n, :], e[k, :]
template <class Z, class E> __device__ __forceinline__ double distance(const Z* z, const E* e, int64_t D) {
    double sum = 0;
    for (int64_t d = 0; d < D; d++) {
        double t = __dsub_rn(to_double(z[d]), to_double(e[d]));
        sum = __dadd_rn(sum, __dmul_rn(t, t));
    }
    return sum;
}

struct Best {    // NaN is never taken: it is neither less nor equal
    double distance;
    int64_t k;
    __device__ __forceinline__ void take(double d, int64_t other) {
        if (d < distance || (d == distance && other < k)) distance = d, k = other;
    }
    __device__ __forceinline__ void take_from_warp() {    // every lane gets the best of all
        for (int offset = 16; offset > 0; offset /= 2)
            take(__shfl_xor_sync(0xffffffffu, distance, offset), __shfl_xor_sync(0xffffffffu, k, offset));
    }
};

template <class Z, class E> __global__ void nearest_naive(const Z* z, const E* e, int64_t* index, int64_t N, int64_t K,
                                                          int64_t D) {
    int64_t n = blockIdx.x * int64_t(THREADS) + threadIdx.x;    // the row that this thread owns
    if (n >= N) return;
    Best best{INFINITY, 0};
    for (int64_t k = 0; k < K; k++) best.take(distance(z + n * D, e + k * D, D), k);
    index[n] = best.k;
}

// ---- rung tiled -----------------------------------------------------------------------------------------------------
// Block (x, y) owns rows BN x .. and the y-th share of the tiles of codes; a thread owns 8 x 8 products.

__global__ void __launch_bounds__(THREADS, 2) screen_tiled(Tables w) {
    constexpr int BD = 16;
    __shared__ float x[BD][BN + 4], y[BD][BK + 4];    // transposed, so that a thread's 8 rows (codes) are two runs of 4
    __shared__ Sieve s;
    open(s, w, (w.DP + 2) * 0x1p-24f * 1.01f);    // (4)
    const int tn = threadIdx.x / 16 * 4, tk = threadIdx.x % 16 * 4;
    auto row = [=](int i) { return tn + i % 4 + i / 4 * 64; };
    auto col = [=](int j) { return tk + j % 4 + j / 4 * 64; };
    const int tiles = w.KP / BK, last = tiles * int64_t(blockIdx.y + 1) / w.S;
    const int r = threadIdx.x / 4, q = threadIdx.x % 4 * 4;    // 4 threads load a row of BD entries, 4 each
    const float* x_ptr = (const float*)w.z + (blockIdx.x * int64_t(BN) + r) * w.DP + q;
    for (int tile = tiles * int64_t(blockIdx.y) / w.S; tile < last; tile++) {
        const float* y_ptr = (const float*)w.e + (tile * int64_t(BK) + r) * w.DP + q;
        float dot[8][8] = {};
        for (int d0 = 0; d0 < w.DP; d0 += BD) {
            for (int i = 0; i < BN; i += THREADS / 4) {
                float4 a = *(const float4*)(x_ptr + i * w.DP + d0), b = *(const float4*)(y_ptr + i * w.DP + d0);
                x[q][r + i] = a.x, x[q + 1][r + i] = a.y, x[q + 2][r + i] = a.z, x[q + 3][r + i] = a.w;
                y[q][r + i] = b.x, y[q + 1][r + i] = b.y, y[q + 2][r + i] = b.z, y[q + 3][r + i] = b.w;
            }
            __syncthreads();
#pragma unroll
            for (int d = 0; d < BD; d++) {
                float xd[8], yd[8];
#pragma unroll
                for (int i = 0; i < 8; i++) xd[i] = x[d][row(i)], yd[i] = y[d][col(i)];
#pragma unroll
                for (int i = 0; i < 8; i++)
#pragma unroll
                    for (int j = 0; j < 8; j++) dot[i][j] = fmaf(xd[i], yd[j], dot[i][j]);
            }
            __syncthreads();
        }
        sift<8, 8, 4, 16>(s, w, tile, row, col, [&](int i, int j) { return dot[i][j]; });
    }
    close(s, w);
}

// ---- rung tensor_core -----------------------------------------------------------------------------------------------
// 8 warps: 4 of rows by 2 of codes. A warp owns 32 x 64 products; an mma.sync computes 16 x 8.

constexpr int HD = 32, STAGES = 3;
// Up to this D the rows of a block stay in shared memory while codes pass; beyond it both are staged, for each tile.
constexpr int64_t STAY = 128;
constexpr size_t staged(int64_t DP) {    // bytes
    return ((DP <= STAY ? DP / HD : STAGES) * BN + STAGES * BK) * HD * sizeof(float16);
}

// Entry d of row r. Rows of 64 bytes: two of them fill the banks, and the four 16-byte pieces of each pair are
// exchanged in another way, so that the 8 rows of an ldmatrix lie in different banks, and so do the 8 pieces that 8
// lanes store. Rows that are padded to 80 bytes do the one, not the other.
__device__ __forceinline__ int at(int r, int d) { return r * HD + (d ^ r / 2 % 4 * 8); }

__global__ void __launch_bounds__(THREADS, 2) screen_tensor_core(Tables w) {
    __shared__ Sieve s;
    open(s, w, (w.DP / 16) * 12 * 0x1p-23f);       // (5)
    const int lane = threadIdx.x % 32, wn = threadIdx.x / 32 % 4 * 32, wk = threadIdx.x / 128 * 64;
    const int tiles = w.KP / BK, first = tiles * int64_t(blockIdx.y) / w.S, steps = w.DP / HD;
    const int todo = (tiles * int64_t(blockIdx.y + 1) / w.S - first) * steps;    // steps of HD entries, over all tiles
    const bool stay = w.DP <= STAY;
    float16* rows = dynamic_shared<float16>();                            // (steps if they stay, else STAGES; BN, HD)
    float16* codes = rows + (stay ? steps : STAGES) * BN * HD;            // (STAGES, BK, HD)
    // 4 threads fetch a row of HD = 32 entries, 16 bytes each
    const int r = threadIdx.x / 4, d = threadIdx.x % 4 * 8;
    const float16* x_ptr = (const float16*)w.z + (blockIdx.x * int64_t(BN) + r) * w.DP + d;
    const float16* y_ptr = (const float16*)w.e + (first * int64_t(BK) + r) * w.DP + d;

    int next = 0, next_part = 0;    // the step that is fetched next, and its part of D
    auto fetch = [&] {
        if (next < todo) {
            float16* x_to = rows + (stay ? next_part : next % STAGES) * BN * HD + at(r, d);
            float16* y_to = codes + next % STAGES * BK * HD + at(r, d);
#pragma unroll
            for (int i = 0; i < BN; i += THREADS / 4) {
                if (!stay || next < steps) copy_async<16>(x_to + i * HD, x_ptr + i * w.DP + next_part * HD);
                copy_async<16>(y_to + i * HD, y_ptr + i * w.DP + next_part * HD);
            }
            if (++next_part == steps) next_part = 0, y_ptr += BK * w.DP;
        }
        next++;
        copy_async_commit();    // an empty group at the end keeps the count
    };
    for (int step = 0; step < STAGES - 1; step++) fetch();

    float dot[2][8][4] = {};    // [16 rows][8 codes][fragment: row lane / 4 (+ 8), code lane % 4 * 2 (+ 1)]
    for (int step = 0, part = 0, tile = first; step < todo; step++) {
        copy_async_wait<STAGES - 2>();
        // the vectors of this step are here, and all threads have finished with the stage that is filled next
        __syncthreads();
        fetch();
        const float16* x = rows + (stay ? part : step % STAGES) * BN * HD;
        const float16* y = codes + step % STAGES * BK * HD;
#pragma unroll
        for (int d = 0; d < HD; d += 16) {
            uint32_t a[2][4], b[4][4];
#pragma unroll
            for (int i = 0; i < 2; i++)
                load_matrix_x4(a[i], x + at(wn + i * 16 + lane % 16, d + lane / 16 * 8));
#pragma unroll
            for (int j = 0; j < 4; j++)
                load_matrix_x4(b[j], y + at(wk + j * 16 + lane / 16 * 8 + lane % 8, d + lane / 8 % 2 * 8));
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    mma_16x8x16_f16(dot[i][j], a[i], {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
        }
        if (++part < steps) continue;
        auto row = [=](int i) { return wn + i / 2 * 16 + i % 2 * 8 + lane / 4; };
        auto col = [=](int j) { return wk + j / 2 * 8 + lane % 4 * 2 + j % 2; };
        sift<4, 16, 2, 4>(s, w, tile, row, col,
                          [&](int i, int j) { return dot[i / 2][j / 2][i % 2 * 2 + j % 2]; });
#pragma unroll
        for (int i = 0; i < 64; i++) dot[i / 32][i / 4 % 8][i % 4] = 0;
        part = 0, tile++;
    }
    close(s, w);
}

// ---- the survivors --------------------------------------------------------------------------------------------------
// A warp decides a row among its survivors; a block scans a row for which the screen proved nothing.

template <class Z, class E> __global__ void settle(const Z* z, const E* e, int64_t* index, Tables w) {
    __shared__ bool unproven[THREADS / 32];
    __shared__ Best found[THREADS / 32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64_t first = blockIdx.x * int64_t(THREADS / 32), n = first + warp;    // the row that this warp owns
    bool scan = false;
    if (n < w.N) {
        float bound = INFINITY;
        for (int64_t i = 0; i < w.S; i++)
            bound = fminf(bound, w.bound[n * w.S + i]), scan |= w.count[n * w.S + i] > LIST;
        int mine = 0, k = 0;    // survivors of this lane, and the last of them
        auto survivor = [&](int64_t i) {
            if (i % LIST >= w.count[n * w.S + i / LIST]) return false;
            Survivor it = w.list[n * w.S * LIST + i];
            k = it.low <= bound ? it.k : k;
            return it.low <= bound;    // (9)
        };
        for (int64_t i = lane; !scan && i < w.S * LIST; i += 32) mine += survivor(i);
        unsigned lanes = __ballot_sync(0xffffffffu, mine > 0);
        bool only = __popc(lanes) == 1 && !__any_sync(0xffffffffu, mine > 1);
        Best best{INFINITY, only && mine ? k : INT_MAX};
        for (int64_t i = lane; !scan && !only && i < w.S * LIST; i += 32)
            if (survivor(i)) best.take(distance(z + n * w.D, e + k * w.D, w.D), k);
        best.take_from_warp();
        scan |= lanes == 0;
        if (!scan && lane == 0) index[n] = best.k;
    }
    if (lane == 0) unproven[warp] = scan;
    __syncthreads();
    for (int row = 0; row < THREADS / 32; row++) {
        if (!unproven[row]) continue;    // the same for all threads
        Best best{INFINITY, 0};
        for (int64_t k = threadIdx.x; k < w.K; k += THREADS)
            best.take(distance(z + (first + row) * w.D, e + k * w.D, w.D), k);
        best.take_from_warp();
        if (lane == 0) found[warp] = best;
        __syncthreads();
        for (int i = 0; i < THREADS / 32; i++) best.take(found[i].distance, found[i].k);
        if (threadIdx.x == 0) index[first + row] = best.k;
        __syncthreads();
    }
}

// ---- launchers ------------------------------------------------------------------------------------------------------

// returns its bytes
static int64_t lay_out(Tables& w, void* workspace, bool half, int64_t N, int64_t K, int64_t D, int64_t S) {
    int64_t bytes = 0;
    auto take = [&](auto*& pointer, int64_t size) {
        pointer = (std::remove_reference_t<decltype(pointer)>)((char*)workspace + bytes);
        bytes += ceil_div(size, 256) * 256;
    };
    w.N = N, w.K = K, w.D = D, w.S = S;
    w.NP = ceil_div(N, BN) * BN, w.KP = ceil_div(K, BK) * BK, w.DP = ceil_div(D, 32) * 32;
    take(w.centre, D * 8), take(w.unit, 4);
    take(w.about_code, w.KP * 16), take(w.about_row, w.NP * 16), take(w.code, w.KP * 16),
        take(w.widest, w.KP / BK * 16);
    take(w.e, w.KP * w.DP * (half ? 2 : 4)), take(w.z, w.NP * w.DP * (half ? 2 : 4));
    take(w.bound, w.NP * S * 4), take(w.count, w.NP * S * 4), take(w.list, w.NP * S * LIST * 8);
    return bytes;
}

template <class P, class Z, class E> int screened(const Z* z, const E* e, int64_t* index, Tables w, void* stream) {
    const dim3 block(THREADS), grid(w.NP / BN, w.S);
    int* none = nullptr;
    int code = launch(centre_of_codes<E>, dim3(ceil_div(w.D, 32)), block, 0, stream, e, w.centre, w.unit, w.K, w.D);
    if (code) return code;
    code = launch(pack<E, P>, dim3(w.KP * 32 / THREADS), block, 0, stream, e, w.centre, (P*)w.e, w.about_code, w.unit,
                  w.K, w.D, w.DP);
    if (code) return code;
    code = launch(place_codes, dim3(w.KP / BK), dim3(BK), 0, stream, w.about_code, w.unit, w.code, w.widest);
    if (code) return code;
    code = launch(pack<Z, P>, dim3(w.NP * 32 / THREADS), block, 0, stream, z, w.centre, (P*)w.z, w.about_row, none,
                  w.N, w.D, w.DP);
    if (code) return code;
    if (sizeof(P) == 4) code = launch(screen_tiled, grid, block, 0, stream, w);
    else code = launch(screen_tensor_core, grid, block, staged(w.DP), stream, w);
    if (code) return code;
    return launch(settle<Z, E>, dim3(ceil_div(w.N, THREADS / 32)), block, 0, stream, z, e, index, w);
}

// half: of the rung tensor_core, else of tiled
extern "C" int64_t nearest_code_workspace(int half, int64_t N, int64_t K, int64_t D, int64_t S) {
    Tables w;
    return lay_out(w, nullptr, half, N, K, D, S);
}

// Counts how many codes of each row were scored again, or -1 if all were, from a workspace in the host's memory after
// the search. Returns the number of rows.
extern "C" int64_t nearest_code_effort(int half, void* workspace, int64_t* survivors, int64_t N, int64_t K, int64_t D,
                                       int64_t S) {
    Tables w;
    lay_out(w, workspace, half, N, K, D, S);
    int64_t scanned = 0;
    for (int64_t n = 0; n < N; n++) {
        float bound = INFINITY;
        bool scan = false;
        for (int64_t i = n * S; i < n * S + S; i++)
            bound = w.bound[i] < bound ? w.bound[i] : bound, scan |= w.count[i] > LIST;
        survivors[n] = 0;
        for (int64_t i = n * S * LIST; i < (n + 1) * S * LIST; i++)
            survivors[n] += i % LIST < w.count[i / LIST] && w.list[i].low <= bound;
        if (scan || !survivors[n]) survivors[n] = -1, scanned++;
    }
    return scanned;
}

template <class Z, class E> int naive(const Z* z, const E* e, int64_t* index, Tables w, void* stream) {
    const dim3 grid(ceil_div(w.N, THREADS));
    return launch(nearest_naive<Z, E>, grid, dim3(THREADS), 0, stream, z, e, index, w.N, w.K, w.D);
}

#define RUNG(rung, half, search)                                                                                    \
    extern "C" int nearest_code_##rung(int z_dtype, int e_dtype, const void* z, const void* e, int64_t* index,      \
                                       int64_t N, int64_t K, int64_t D, void* workspace, int64_t S, void* stream) { \
        Tables w;                                                                                                   \
        lay_out(w, workspace, half, N, K, D, S);                                                                    \
        return with_dtypes(z_dtype, e_dtype, [&](auto z0, auto e0) {                                                \
            return search((const decltype(z0)*)z, (const decltype(e0)*)e, index, w, stream);                        \
        });                                                                                                         \
    }
RUNG(naive, false, naive)
RUNG(tiled, false, screened<float>)
RUNG(tensor_core, true, screened<float16>)
