// CLIP's symmetric contrastive loss and its gradient, on a CPU.   Room: kernels/info_nce.py
//
// l is computed in blocks of BLOCK x BLOCK and never kept: products are sums in registers, ROWS rows by VECTORS vectors
// at a time. The pass: a task is a strip of BLOCK rows, which walks along m; the columns' maximum and sum of each strip
// are joined at the end, in the order of the strips. The gradient: a slab of SLAB rows of dl exists at once. A task
// owns BLOCK columns of it, and their rows of db; when all are done, tasks own rows of da. No sum depends on the number
// of threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include <cmath>
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

constexpr int64_t BLOCK = 64;
constexpr int64_t CHAIN = 128;    // numbers that are added one after another
constexpr int64_t SLAB = 2 * BLOCK;
constexpr int ROWS = 4;           // whose sums are in registers at once: a divisor of BLOCK
constexpr int64_t DA_ROWS = 16;    // of a task, a multiple of ROWS

template <class T> struct Problem {
    const T *a, *b;    // (N, D)
    T scale;
    int64_t N, D;
    T* packed;    // b, (N / TILE, D, TILE): d by d, TILE rows side by side; zeros from N to whole blocks
    int64_t blocks() const { return ceil_div(N, BLOCK); }
    int64_t rows(int64_t block) const { return std::min(BLOCK, N - block * BLOCK); }    // that there are
};

template <class T> struct Forward : Problem<T> {
    T *loss, *u, *log_s, *v, *log_t;    // (N); loss is l_nn until the strips are joined
    T *part_v, *part_t;                 // (blocks, whole blocks of N): the columns of each strip
};

template <class T> struct Gradient : Problem<T> {
    const T *g, *u, *log_s, *v, *log_t;    // g = dloss
    T *da, *db;
    T* dl;           // (blocks, SLAB, BLOCK): scale dl
    double* sums;    // (slabs, blocks): of dscale
};

// y_kj of `product`: rows of a matrix, or packed
template <class T> struct Right {
    const T* y;
    int64_t k, j;    // its strides; j of a whole tile of columns is j times as far, within a tile 1
};

}    // namespace

#define EACH_SET "../info_nce.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set
#if SET == AVX512
constexpr int VECTORS = 4;
#else
constexpr int VECTORS = 2;    // 16 registers
#endif
template <class T> constexpr int64_t TILE = VECTORS * LANES<T>;

// ---- products -------------------------------------------------------------------------------------------------------

// c_rj (+)= sum_k x_rk y_kj for R rows and V vectors of columns, the last with `last` numbers
template <class T, int R, int V, bool WHOLE>
static inline void sums(const T* x, int64_t x_r, int64_t x_k, const T* y, int64_t y_k, int64_t K, T* c, int64_t c_r,
                        int64_t last, bool add) {
    constexpr int L = LANES<T>;
    auto count = [=](int v) { return WHOLE || v < V - 1 ? int64_t(L) : last; };
    vec<T> sum[R][V] = {};
    for (int64_t k = 0; k < K; k++) {
        vec<T> y_kj[V];
        for (int v = 0; v < V; v++) y_kj[v] = load(y + k * y_k + v * L, count(v));
        for (int r = 0; r < R; r++) {
            const vec<T> x_rk = x[r * x_r + k * x_k] - vec<T>{};
            for (int v = 0; v < V; v++) sum[r][v] = fused(x_rk, y_kj[v], sum[r][v]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            T* c_rv = c + r * c_r + v * L;
            store(c_rv, add ? load(c_rv, count(v)) + sum[r][v] : sum[r][v], count(v));
        }
}

// c (rows, columns) (+)= x (rows, K) y (K, columns), of at most CHAIN k
template <class T>
static void part(const T* x, int64_t x_r, int64_t x_k, Right<T> y, int64_t rows, int64_t K, int64_t columns, T* c,
                 int64_t c_r, bool add) {
    constexpr int L = LANES<T>;
    for (int64_t j = 0, width; j < columns; j += width) {
        const T* y_j = y.y + j * y.j;
        const bool tile = columns - j >= TILE<T>;
        width = tile ? TILE<T> : std::min<int64_t>(L, columns - j);
        int64_t r = 0;
        for (; r + ROWS <= rows; r += ROWS) {
            auto* of_rows = tile ? sums<T, ROWS, VECTORS, true> : sums<T, ROWS, 1, false>;
            of_rows(x + r * x_r, x_r, x_k, y_j, y.k, K, c + r * c_r + j, c_r, width, add);
        }
        for (; r < rows; r++) {
            auto* of_row = tile ? sums<T, 1, VECTORS, true> : sums<T, 1, 1, false>;
            of_row(x + r * x_r, x_r, x_k, y_j, y.k, K, c + r * c_r + j, c_r, width, add);
        }
    }
}

// The same of any K; x_rk = x[r x_r + k x_k]. The sums of parts are added: rounding grows with CHAIN + K / CHAIN
template <class T>
static void product(const T* x, int64_t x_r, int64_t x_k, Right<T> y, int64_t rows, int64_t K, int64_t columns, T* c,
                    int64_t c_r, bool add) {
    int64_t k = 0;
    do {
        part<T>(x + k * x_k, x_r, x_k, {y.y + k * y.k, y.k, y.j}, rows, std::min(CHAIN, K - k), columns, c, c_r,
                add || k > 0);
        k += CHAIN;
    } while (k < K);
}

// Rows m of b, as the columns of l need them
template <class T> static void pack(const Problem<T>& p, int64_t block) {
    constexpr int64_t SOME = 16;    // numbers of a row: those of a tile stay in the first cache
    for (int64_t m0 = block * BLOCK; m0 < (block + 1) * BLOCK; m0 += TILE<T>)
        for (int64_t d0 = 0; d0 < p.D; d0 += SOME)
            for (int64_t m = 0; m < TILE<T>; m++)
                for (int64_t d = d0; d < std::min(p.D, d0 + SOME); d++)
                    p.packed[m0 * p.D + d * TILE<T> + m] = m0 + m < p.N ? p.b[(m0 + m) * p.D + d] : T(0);
}

// a_n . b_m for rows of a from n0 on and one block of columns, with zeros beyond N
template <class T> static inline void dots(const Problem<T>& p, int64_t n0, int64_t rows, int64_t block, T* x) {
    product<T>(p.a + n0 * p.D, p.D, 1, {p.packed + block * BLOCK * p.D, TILE<T>, p.D}, rows, p.D, BLOCK, x, BLOCK,
               false);
}

// ---- the pass -------------------------------------------------------------------------------------------------------

// exp(x), and 0 where x is far below 0 or -inf: `exponential` gives exp(-CUT) there
template <class T> static inline vec<T> weight(vec<T> x) { return x < -CUT<T> ? vec<T>{} : exponential<T>(x); }

// 0 where the maximum is -inf: then `weight` gives 0 and not NaN
template <class T> static inline vec<T> finite(vec<T> top) {
    return top == -T(INFINITY) - vec<T>{} ? vec<T>{} : top;
}

// Rows of strip `strip` along all m: u and log s, l_nn, and the strip's part of v and t. Scratch: a block of l, and for
// each lane of a row the maximum so far and its sum
template <class T> static void walk(const Forward<T>& p, int64_t strip, T* scratch) {
    constexpr int L = LANES<T>;
    T *block_of_l = scratch, *tops = block_of_l + BLOCK * BLOCK, *row_sums = tops + BLOCK * L;
    const int64_t n0 = strip * BLOCK, rows = p.rows(strip), stride = p.blocks() * BLOCK;
    const vec<T> lowest_of_all = -T(INFINITY) - vec<T>{}, scale = p.scale - vec<T>{};
    for (int64_t i = 0; i < rows; i++) store(tops + i * L, lowest_of_all), store(row_sums + i * L, vec<T>{});
    for (int64_t block = 0; block < p.blocks(); block++) {
        dots(p, n0, rows, block, block_of_l);
        const int64_t columns = p.rows(block);
        vec<T> v[BLOCK / L], t[BLOCK / L];
        for (auto& top : v) top = lowest_of_all;
        for (int64_t i = 0; i < rows; i++) {
            T* l = block_of_l + i * BLOCK;
            const vec<T> before = load(tops + i * L);
            vec<T> top = before;
            for (int64_t j = 0; j < BLOCK; j += L) {
                vec<T> l_nm = scale * load(l + j);
                store(l + j, l_nm);
                if (j + L > columns) {    // beyond N they are -inf, which adds nothing
                    for (int64_t h = std::max(columns, j); h < j + L; h++) l[h] = -T(INFINITY);
                    l_nm = load(l + j);
                }
                top = most(top, l_nm), v[j / L] = most(v[j / L], l_nm);
            }
            vec<T> sum = load(row_sums + i * L) * weight<T>(before - finite<T>(top));
            for (int64_t j = 0; j < BLOCK; j += L) sum += weight<T>(load(l + j) - finite<T>(top));
            store(tops + i * L, top), store(row_sums + i * L, sum);
        }
        if (block == strip)
            for (int64_t i = 0; i < rows; i++) p.loss[n0 + i] = block_of_l[i * BLOCK + i];
        for (auto& sum : t) sum = vec<T>{};
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < BLOCK; j += L)
                t[j / L] += weight<T>(load(block_of_l + i * BLOCK + j) - finite<T>(v[j / L]));
        for (int64_t j = 0, at = strip * stride + block * BLOCK; j < BLOCK; j += L, at += L)
            store(p.part_v + at, v[j / L]), store(p.part_t + at, t[j / L]);
    }
    for (int64_t i = 0; i < rows; i++) {    // the lanes of a row are joined
        const vec<T> top = load(tops + i * L);
        p.u[n0 + i] = -lowest<T>(-top);
        const vec<T> u = p.u[n0 + i] - vec<T>{};
        p.log_s[n0 + i] = std::log(total<T>(load(row_sums + i * L) * weight<T>(top - finite<T>(u))));
    }
}

// The strips of a block of columns are joined in their order; then the loss
template <class T> static void join(const Forward<T>& p, int64_t block) {
    const int64_t stride = p.blocks() * BLOCK, columns = p.rows(block), m0 = block * BLOCK;
    each_vector<T>(columns, [&](int64_t j, int64_t count) {
        vec<T> v = -T(INFINITY) - vec<T>{}, t = {};
        for (int64_t strip = 0; strip < p.blocks(); strip++) v = most(v, load(p.part_v + strip * stride + m0 + j));
        for (int64_t strip = 0; strip < p.blocks(); strip++) {
            const int64_t at = strip * stride + m0 + j;
            t += load(p.part_t + at) * weight<T>(load(p.part_v + at) - finite<T>(v));
        }
        store(p.v + m0 + j, v, count), store(p.log_t + m0 + j, t, count);
    });
    for (int64_t m = m0; m < m0 + columns; m++) {
        p.log_t[m] = std::log(p.log_t[m]);
        p.loss[m] = T(0.5) * (((p.u[m] - p.loss[m]) + p.log_s[m]) + ((p.v[m] - p.loss[m]) + p.log_t[m]));
    }
}

// ---- the gradient ---------------------------------------------------------------------------------------------------

// A block of columns of the slab: dl, its share of dscale, and db += dl^T a
template <class T> static void columns(const Gradient<T>& p, int64_t slab, int64_t block) {
    constexpr int L = LANES<T>;
    const int64_t n0 = slab * SLAB, rows = std::min(SLAB, p.N - n0), m0 = block * BLOCK, here = p.rows(block);
    T* const dl = p.dl + block * SLAB * BLOCK;
    dots(p, n0, rows, block, dl);
    vec<T> v[BLOCK / L] = {}, log_t[BLOCK / L] = {}, g[BLOCK / L] = {};
    each_vector<T>(here, [&](int64_t j, int64_t count) {
        v[j / L] = load(p.v + m0 + j, count), log_t[j / L] = load(p.log_t + m0 + j, count);
        g[j / L] = load(p.g + m0 + j, count);
    });
    T beyond[BLOCK];    // what l has beyond N: P and Q are 0 there, however low u is
    for (int64_t j = 0; j < BLOCK; j++) beyond[j] = j < here ? T(0) : -T(INFINITY);
    const vec<T> scale = p.scale - vec<T>{}, half = T(0.5) - vec<T>{};
    vec<T> sum = {};
    for (int64_t i = 0; i < rows; i++) {
        const int64_t n = n0 + i, match = n - m0;    // the place of l_nn, if it is in the block
        const vec<T> u = p.u[n] - vec<T>{}, log_s = p.log_s[n] - vec<T>{}, g_n = p.g[n] - vec<T>{};
        T* row = dl + i * BLOCK;
        for (int64_t j = 0; j < here; j += L) {
            const vec<T> x = load(row + j), l = scale * x + load(beyond + j);
            const vec<T> P = weight<T>((l - u) - log_s), Q = weight<T>((l - v[j / L]) - log_t[j / L]);
            vec<T> dl_nm = half * fused(g_n, P, g[j / L] * Q);
            if (j <= match && match < j + L) {
                store(row + j, dl_nm);
                row[match] -= p.g[n];
                dl_nm = load(row + j);
            }
            sum = fused(dl_nm, x, sum);    // beyond N both are 0
            store(row + j, scale * dl_nm);
        }
    }
    p.sums[slab * p.blocks() + block] = total<T>(sum);
    // forward was: l_nm = scale a_n . b_m
    product<T>(dl, 1, BLOCK, {p.a + n0 * p.D, p.D, 1}, here, rows, p.D, p.db + m0 * p.D, p.D, slab > 0);
}

// Rows n0 ... n1 - 1 of da = dl b
template <class T> static void rows(const Gradient<T>& p, int64_t n0, int64_t n1) {
    for (int64_t block = 0; block < p.blocks(); block++)
        product<T>(p.dl + (block * SLAB + n0 % SLAB) * BLOCK, BLOCK, 1, {p.b + block * BLOCK * p.D, p.D, 1}, n1 - n0,
                   p.rows(block), p.D, p.da + n0 * p.D, p.D, block > 0);
}

#else
// ---- tasks and entry points -----------------------------------------------------------------------------------------
namespace {

template <class T> constexpr int64_t SCRATCH = BLOCK * (BLOCK + 2 * 64 / int64_t(sizeof(T)));    // of a thread

template <class T> void layout(Arena& arena, Forward<T>& p, T*& scratch, int threads) {
    const int64_t blocks = p.blocks();
    p.packed = arena.take<T>(blocks * BLOCK * p.D);
    scratch = arena.take<T>(std::min<int64_t>(threads, blocks) * SCRATCH<T>);
    p.part_v = arena.take<T>(blocks * blocks * BLOCK), p.part_t = arena.take<T>(blocks * blocks * BLOCK);
}

template <class T> void layout(Arena& arena, Gradient<T>& p) {
    const int64_t blocks = p.blocks();
    p.packed = arena.take<T>(blocks * BLOCK * p.D), p.dl = arena.take<T>(blocks * SLAB * BLOCK);
    p.sums = arena.take<double>(ceil_div(p.N, SLAB) * blocks);
}

template <class T> void run(Forward<T>& p, void* workspace, int threads) {
    Arena arena(workspace);
    T* scratch;
    layout(arena, p, scratch, threads);
    const int set = instruction_set();
    auto pack = OF_SET(set, pack<T>);
    auto walk = OF_SET(set, walk<T>);
    auto join = OF_SET(set, join<T>);
    threads = worth_waking(threads, p.N * p.N, 1 + 0.02 * p.D);
    parallel(p.blocks(), threads, [&](int64_t block, int) { pack(p, block); });
    parallel(p.blocks(), threads, [&](int64_t strip, int t) { walk(p, strip, scratch + t * SCRATCH<T>); });
    parallel(p.blocks(), threads, [&](int64_t block, int) { join(p, block); });
}

template <class T> void run(Gradient<T>& p, T* dscale, void* workspace, int threads) {
    Arena arena(workspace);
    layout(arena, p);
    const int set = instruction_set();
    auto pack = OF_SET(set, pack<T>);
    auto columns = OF_SET(set, columns<T>);
    auto rows = OF_SET(set, rows<T>);
    threads = worth_waking(threads, p.N * p.N, 1 + 0.02 * p.D);
    parallel(p.blocks(), threads, [&](int64_t block, int) { pack(p, block); });
    const int64_t slabs = ceil_div(p.N, SLAB);
    for (int64_t slab = 0; slab < slabs; slab++) {
        const int64_t n0 = slab * SLAB, n1 = std::min(p.N, n0 + SLAB);
        parallel(p.blocks(), threads, [&](int64_t block, int) { columns(p, slab, block); });
        parallel(ceil_div(n1 - n0, DA_ROWS), threads, [&](int64_t task, int) {
            rows(p, n0 + task * DA_ROWS, std::min(n1, n0 + (task + 1) * DA_ROWS));
        });
    }
    double sum = 0;
    for (int64_t i = 0; i < slabs * p.blocks(); i++) sum += p.sums[i];
    *dscale = T(sum);
}

bool possible(int64_t N, int64_t D, int threads) { return N >= 0 && D >= 0 && threads >= 1; }

template <class T> Problem<T> problem(const void* a, const void* b, const void* scale, int64_t N, int64_t D) {
    return {(const T*)a, (const T*)b, *(const T*)scale, N, D, nullptr};
}

}    // namespace

// Bytes of the workspace of either function below. dtype: 0 float32, 3 float64
extern "C" int64_t info_nce_cpu_workspace(int dtype, int64_t N, int64_t D, int threads) {
    Arena arena;
    with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Forward<T> p = {};
        p.N = N, p.D = D;
        T* scratch;
        layout(arena, p, scratch, threads);
    });
    return arena.bytes();
}
extern "C" int64_t info_nce_backward_cpu_workspace(int dtype, int64_t N, int64_t D, int) {
    Arena arena;
    with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Gradient<T> p = {};
        p.N = N, p.D = D;
        layout(arena, p);
    });
    return arena.bytes();
}

// loss (N), and stats (4, N): u, log s, v, log t. Both functions return 0, or 1 for a bad argument.
extern "C" int info_nce_cpu(int dtype, const void* a, const void* b, const void* scale, void* loss, void* stats,
                            void* workspace, int64_t N, int64_t D, int threads) {
    if (!possible(N, D, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        T* s = (T*)stats;
        Forward<T> p = {problem<T>(a, b, scale, N, D), (T*)loss, s, s + N, s + 2 * N, s + 3 * N, nullptr, nullptr};
        run(p, workspace, threads);
    });
}

extern "C" int info_nce_backward_cpu(int dtype, const void* dloss, const void* a, const void* b, const void* scale,
                                     const void* stats, void* da, void* db, void* dscale, void* workspace, int64_t N,
                                     int64_t D, int threads) {
    if (!possible(N, D, threads)) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        const T* s = (const T*)stats;
        Gradient<T> p = {problem<T>(a, b, scale, N, D), (const T*)dloss, s, s + N, s + 2 * N, s + 3 * N,
                         (T*)da, (T*)db, nullptr, nullptr};
        run(p, (T*)dscale, workspace, threads);
    });
}
#endif
