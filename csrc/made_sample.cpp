// Draws from MADE on a CPU, with the arithmetic of one pass.   Room: kernels/made_sample.py
//
// A task is a few vectors of samples, one sample a lane, for the whole walk over the pixels. Activations are stored
// unit by unit, the samples of a task side by side: a weight is loaded once for all of them, and each row of weights is
// read in order. The order of a sample's sums depends neither on its neighbours nor on the number of threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include "cpu/numbers.h"
#include "cpu/threads.h"
#include "made_sample.h"

namespace {

constexpr int WIDEST = 4;    // vectors of a task

template <class T> struct Made : Sizes {
    const Layer<T>* layers;    // (I + 2): the hidden ones, V, A
    const T* u;                // (N, D)
    uint8_t* x;                // (N, D): x[:, :known] is read, the rest is written
    int64_t* ends;             // (I + 1, D + 1): how many units of layer i, of 0 the inputs, have a degree of at most d
    T* logits;                 // (N, D, R)
    int64_t R() const { return L == 2 ? 1 : L; }    // outputs a pixel
    int64_t end(int64_t i, int64_t d) const { return d < 0 ? 0 : ends[i * (D + 1) + d]; }
};

}    // namespace

#define EACH_SET "../made_sample.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // ---- the walk, read by csrc/cpu/each_set.h for each instruction set -----------------------------------

// Arrays of a task are (units, S): S = V LANES samples side by side.

template <class T> struct Piece {    // of a sum: the first `count` numbers of rows of W, with those of z
    const T* W;
    int64_t K, count;
    const T* z;
};

// y_j = b_j + W_j . z (+ A_j . z^0) for R rows at once, which share the loads of z. A single row has four partial sums,
// because each addition to one sum would wait for the addition before it
template <class T, int R, int V> static inline void rows(const Piece<T>* piece, int pieces, const T* b, int64_t j,
                                                         bool hidden, T* y) {
    constexpr int S = V * LANES<T>, WAYS = R == 1 ? 4 : 1;
    const vec<T> zero = {};
    vec<T> sum[WAYS][R][V] = {};
    auto add = [&](const Piece<T>& p, int64_t k, int way) {
        for (int v = 0; v < V; v++) {
            vec<T> z = load(p.z + k * S + v * LANES<T>);
            for (int r = 0; r < R; r++) sum[way][r][v] = fused(p.W[(j + r) * p.K + k] + zero, z, sum[way][r][v]);
        }
    };
    for (int i = 0; i < pieces; i++) {
        const Piece<T>& p = piece[i];
        int64_t k = 0;
        for (; k + WAYS <= p.count; k += WAYS)
            for (int way = 0; way < WAYS; way++) add(p, k + way, way);
        for (; k < p.count; k++) add(p, k, 0);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            vec<T> all = WAYS == 1 ? sum[0][r][v]
                                   : (sum[0][r][v] + sum[1 % WAYS][r][v]) + (sum[2 % WAYS][r][v] + sum[3 % WAYS][r][v]);
            if (b) all += b[j + r];
            store(y + r * S + v * LANES<T>, hidden ? most(zero, all) : all);
        }
}

template <class T, int V> static void rows(const Piece<T>* piece, int pieces, const T* b, int64_t j0, int64_t j1,
                                           bool hidden, T* y) {
    constexpr int S = V * LANES<T>;
    int64_t j = j0;
    for (; j + 4 <= j1; j += 4) rows<T, 4, V>(piece, pieces, b, j, hidden, y + (j - j0) * S);
    for (; j < j1; j++) rows<T, 1, V>(piece, pieces, b, j, hidden, y + (j - j0) * S);
}

// How many of P(x_d <= 0), ..., P(x_d <= L-2) are at most u, lane by lane. l (R, S) is overwritten.
template <class T> static inline vec<T> drawn(T* l, int64_t S, int64_t L, vec<T> u) {
    const vec<T> zero = {}, one = T(1) + zero;
    if (L == 2) return u >= sigma<T>(-load(l)) ? one : zero;
    vec<T> top = load(l), total = zero, below = zero, level = zero;
    // `most` drops a NaN in its first argument; the exponential of l - top is NaN then, and so is every P
    for (int64_t k = 1; k < L; k++) top = most(top, load(l + k * S));
    for (int64_t k = 0; k < L; k++) {
        vec<T> t = load(l + k * S) - top, e = t < -CUT<T> ? zero : exponential<T>(t);
        store(l + k * S, e);
        total += e;
    }
    for (int64_t k = 0; k < L - 1; k++) {
        below += load(l + k * S) / total;
        level += u >= below ? one : zero;
    }
    return level;
}

// Draws samples n0 ... n0 + S - 1. Lanes from sample N on compute too; their results are not stored.
template <class T, int V> static void samples(const Made<T>& m, int64_t n0, T* z) {
    constexpr int S = V * LANES<T>;
    int64_t D = m.D, L = m.L, R = m.R(), I = m.I;
    int count = int(std::min<int64_t>(S, m.N - n0));
    T* l = z + m.units * S;    // (R, S)
    alignas(64) T u[S] = {}, level[S] = {};
    for (int64_t d = 0; d < D; d++) {
        T* below = z;    // z^{i-1}
        for (int64_t i = 1; i <= I; i++) {
            const Layer<T>& layer = m.layers[i - 1];
            const Piece<T> piece = {layer.W, layer.K, m.end(i - 1, d), below};
            T* here = below + m.end(i - 1, D) * S;    // z^i, of which the units of degree d are final now
            rows<T, V>(&piece, 1, layer.b, m.end(i, d - 1), m.end(i, d), true, here + m.end(i, d - 1) * S);
            below = here;
        }
        const Layer<T>&V_d = m.layers[I], &A_d = m.layers[I + 1];
        const Piece<T> pieces[] = {{V_d.W, V_d.K, m.end(I, d), below}, {A_d.W, A_d.K, m.end(0, d), z}};
        rows<T, V>(pieces, A_d.W ? 2 : 1, V_d.b, d * R, (d + 1) * R, false, l);
        for (int s = 0; s < count; s++) {
            int64_t nd = (n0 + s) * D + d;
            for (int64_t r = 0; r < R; r++) m.logits[nd * R + r] = l[r * S + s];
            level[s] = m.x[nd], u[s] = m.u[nd];
        }
        if (d >= m.known)
            for (int v = 0; v < V; v++)
                store(level + v * LANES<T>, drawn<T>(l + v * LANES<T>, S, L, load(u + v * LANES<T>)));
        for (int s = 0; s < count && d >= m.known; s++) m.x[(n0 + s) * D + d] = uint8_t(level[s]);
        for (int64_t k = 1; k < L; k++)
            for (int s = 0; s < S; s++) z[(d * (L - 1) + k - 1) * S + s] = level[s] >= T(k) ? T(1) : T(0);
    }
}

template <class T> static void task_of_samples(const Made<T>& m, int64_t n0, int vectors, T* z) {
    if (vectors == 1) samples<T, 1>(m, n0, z);
    if (vectors == 2) samples<T, 2>(m, n0, z);
    if (vectors == 3) samples<T, 3>(m, n0, z);
    if (vectors == 4) samples<T, 4>(m, n0, z);
}

#else
// ---- tasks and entry points -----------------------------------------------------------------------------------------
namespace {

// Vectors of a task: few enough that no thread is idle
inline int width(int64_t N, int threads, int64_t lanes) {
    return int(std::clamp<int64_t>(ceil_div(ceil_div(N, lanes), threads), 1, WIDEST));
}

template <class T> void find_ends(const Made<T>& m) {
    for (int64_t i = 0; i <= m.I; i++)
        for (int64_t d = 0; d <= m.D; d++) {
            const int64_t* degrees = i ? m.layers[i - 1].degrees : nullptr;    // the layer above reads all units
            m.ends[i * (m.D + 1) + d] =
                i ? std::upper_bound(degrees, degrees + m.layers[i].K, d) - degrees : d * (m.L - 1);
        }
}

template <class T> void all_samples(const Made<T>& m, void* workspace, int threads) {
    const int set = instruction_set(), lanes = OF_SET(set, LANES<T>);
    auto task_of_samples = OF_SET(set, task_of_samples<T>);
    int vectors = width(m.N, threads, lanes), samples = vectors * lanes;
    int64_t numbers = (m.units + m.R()) * samples;    // of a task
    T* z = Arena(workspace).take<T>(threads * numbers);
    parallel(ceil_div(m.N, samples), threads,
             [&](int64_t task, int t) { task_of_samples(m, task * samples, vectors, z + t * numbers); });
}

}    // namespace

// Bytes of the workspace. dtype: 0 float32, 3 float64. It is that of vectors of 64 bytes, whatever set this processor
// has: a task of narrower vectors has no more samples
extern "C" int64_t made_sample_cpu_workspace(int dtype, const void* sizes, int threads) {
    const Sizes& s = *(const Sizes*)sizes;
    int64_t bytes = 64 * width(s.N, threads, dtype == 0 ? 16 : 8);    // of one number of all samples of a task
    Arena arena;
    arena.take<char>(threads * (s.units + (s.L == 2 ? 1 : s.L)) * bytes);
    return arena.bytes();
}

// x[:, known:] drawn with u, and the logits (N, D, R). Returns 0, or 1 for a bad argument.
extern "C" int made_sample_cpu(int dtype, const void* sizes, const void* layers, const void* u, void* x,
                               void* ends, void* logits, void* workspace, int threads) {
    const Sizes& s = *(const Sizes*)sizes;
    if (s.I < 0 || s.L < 2 || s.L > 256 || s.N < 0 || s.D < 0 || s.known < 0 || s.known > s.D || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Made<T> m = {s, (const Layer<T>*)layers, (const T*)u, (uint8_t*)x, (int64_t*)ends, (T*)logits};
        find_ends(m);
        all_samples(m, workspace, threads);
    });
}
#endif
