// NADE on a CPU: logits and samples row by row, the gradient tile of hidden units by tile.   Room: kernels/nade.py
//
// The pass: up to ROWS rows are one task; they share the loads of V_d and W_d, and keep a_d and h_d = sigma(a_d) in the
// first cache. A pixel of 0 changes neither, so its sigmoids, which are most of the work, are not computed again.
// The gradient of a unit needs no other unit, so a task is a few vectors of units, for all rows.
// The order of each sum does not depend on the number of threads.

#ifndef SET    // ---- the problem, once for all instruction sets ------------------------------------------------------
#include "cpu/numbers.h"
#include "cpu/threads.h"

namespace {

constexpr int ROWS = 16;     // of a task of the pass
constexpr int GROUP = 32;    // rows of the gradient that are added in the first cache
constexpr int CHUNK = 32;    // pixels between two marks of the gradient
constexpr int WIDEST = 4;    // vectors of a task of the gradient

// Whole vectors of every width; an odd number of cache lines, so that rows spread over the cache
template <class T> constexpr int64_t padded(int64_t H) { return (H + 15) / 32 * 32 + 16; }

template <class T> struct Pass {
    const T* u;         // (N, D), or null if all pixels are known
    uint8_t* x;         // (N, D): x[:, :known] is read, the rest is written
    int64_t known;
    const T *W, *V, *b, *c;    // W transposed: (D, H) as V
    T* logits;          // (N, D)
    int64_t N, D, H;
};

template <class T> struct Gradient {
    const T* dl;        // (N, D)
    const uint8_t* x;
    const T *W, *V, *c;
    T *dW, *dV, *dc;    // (D, H), (D, H), (H)
    int64_t N, D, H;
};

}    // namespace

#define EACH_SET "../nade.cpp"
#include "cpu/each_set.h"
#endif

#ifdef SET    // read by csrc/cpu/each_set.h for each instruction set
// ---- the pass: logits of known pixels, and pixels drawn after their logits ------------------------------------------

// l_i = V_d . h_i + b_d of R rows at once, which share the loads of V_d
template <class T, int R> static inline void dots(const T* V, const T* h, int64_t stride, int64_t H, T b, T* l) {
    vec<T> sum[R] = {};
    each_vector<T>(H, [&](int64_t at, int64_t rest) {
        vec<T> v = load(V + at, rest);
        for (int i = 0; i < R; i++) sum[i] = fused(v, load(h + i * stride + at), sum[i]);
    });
    for (int i = 0; i < R; i++) l[i] = b + total<T>(sum[i]);
}

// Rows n0 ... n1-1, at most ROWS. a and h: (ROWS, stride), stride a multiple of the lanes
template <class T> static void pass(const Pass<T>& p, int64_t n0, int64_t n1, T* a, T* h) {
    int64_t D = p.D, H = p.H, stride = padded<T>(H);
    int rows = int(n1 - n0);
    each_vector<T>(H, [&](int64_t at, int64_t rest) {
        vec<T> start = load(p.c + at, rest), s = sigma<T>(start);
        for (int i = 0; i < rows; i++) store(a + i * stride + at, start), store(h + i * stride + at, s);    // a_1 = c
    });
    alignas(64) T l[ROWS + 64 / sizeof(T)] = {}, off[ROWS + 64 / sizeof(T)];
    for (int64_t d = 0; d < D; d++) {
        int i = 0;
        for (; i + 8 <= rows; i += 8) dots<T, 8>(p.V + d * H, h + i * stride, stride, H, p.b[d], l + i);
        for (; i + 3 <= rows; i += 3) dots<T, 3>(p.V + d * H, h + i * stride, stride, H, p.b[d], l + i);
        for (; i < rows; i++) dots<T, 1>(p.V + d * H, h + i * stride, stride, H, p.b[d], l + i);
        if (d >= p.known)
            for (i = 0; i < rows; i += LANES<T>) store(off + i, sigma<T>(-load(l + i)));    // p(x_d = 0 | x_<d)
        for (i = 0; i < rows; i++) {
            int64_t nd = (n0 + i) * D + d;
            p.logits[nd] = l[i];
            if (d >= p.known) p.x[nd] = p.u[nd] >= off[i];
            if (!p.x[nd]) continue;    // a pixel of 0 changes nothing
            each_vector<T>(H, [&](int64_t at, int64_t rest) {
                vec<T> sum = load(a + i * stride + at) + load(p.W + d * H + at, rest);    // a_{d+1} = a_d + W_d x_d
                store(a + i * stride + at, sum);
                store(h + i * stride + at, sigma<T>(sum));
            });
        }
    }
}

// ---- the gradient of a tile of hidden units -------------------------------------------------------------------------

// Units h0 ... of V vectors, the last with `last` numbers. All rows, ascending, GROUP at a time: sums over n have one
// order.
//   A = sum_{d' > d} da_{d'},  da_d = dl_d V_d h_d (1 - h_d); while h stays the same its factor waits: G = sum dl_d V_d
//   h is recomputed: a at the start of every CHUNK of pixels is marked, then, chunk by chunk from the end, h after each
//   pixel that is 1
template <class T, int V> static void units(const Gradient<T>& g, int64_t h0, int64_t last, T* work) {
    constexpr int L = LANES<T>, TILE = V * L;
    struct Tile {
        vec<T> v[V];
    };
    int64_t D = g.D, H = g.H, chunks = ceil_div(D, CHUNK);
    T *A = work, *G = A + GROUP * TILE, *marks = G + GROUP * TILE, *h = marks + GROUP * chunks * TILE;
    T *dV = h + (CHUNK + 1) * TILE, *dW = dV + CHUNK * TILE;    // of one chunk and GROUP rows
    auto whole = [](const T* p) { Tile t; for (int v = 0; v < V; v++) t.v[v] = load(p + v * L); return t; };
    auto put = [](T* p, const Tile& t) { for (int v = 0; v < V; v++) store(p + v * L, t.v[v]); };
    auto rest = [=](int v) { return v == V - 1 ? last : int64_t(L); };
    auto row = [=](const T* p) {
        Tile t;
        for (int v = 0; v < V; v++) t.v[v] = load(p + h0 + v * L, rest(v));
        return t;
    };
    auto add = [=](bool first, T* p, const Tile& t) {
        for (int v = 0; v < V; v++)
            store(p + h0 + v * L, first ? t.v[v] : load(p + h0 + v * L, rest(v)) + t.v[v], rest(v));
    };
    auto settle = [](Tile& A, Tile& G, const Tile& s) {    // adds the waiting G to A
        for (int v = 0; v < V; v++) A.v[v] = fused(G.v[v] * s.v[v], T(1) - s.v[v], A.v[v]), G.v[v] = vec<T>{};
    };
    const Tile zero = {}, c = row(g.c);
    for (int64_t n0 = 0; n0 == 0 || n0 < g.N; n0 += GROUP) {    // without rows once, to write zeros
        int rows = int(std::min<int64_t>(GROUP, g.N - n0));
        for (int i = 0; i < rows; i++) {
            const uint8_t* x = g.x + (n0 + i) * D;
            Tile a = c;
            for (int64_t d = 0; d < D; d++) {
                if (d % CHUNK == 0) put(marks + (i * chunks + d / CHUNK) * TILE, a);
                if (!x[d]) continue;
                Tile w = row(g.W + d * H);
                for (int v = 0; v < V; v++) a.v[v] += w.v[v];
            }
            put(A + i * TILE, zero), put(G + i * TILE, zero);
        }
        for (int64_t chunk = chunks - 1; chunk >= 0; chunk--) {
            int64_t d0 = chunk * CHUNK, d1 = std::min(D, d0 + CHUNK);
            for (int64_t d = 0; d < d1 - d0; d++) put(dV + d * TILE, zero), put(dW + d * TILE, zero);
            for (int i = 0; i < rows; i++) {
                const uint8_t* x = g.x + (n0 + i) * D;
                const T* dl = g.dl + (n0 + i) * D;
                T* now = h;    // where h_d is
                Tile a = whole(marks + (i * chunks + chunk) * TILE), s;
                for (int v = 0; v < V; v++) s.v[v] = sigma<T>(a.v[v]);
                put(h, s);
                for (int64_t d = d0; d < d1; d++) {
                    if (!x[d]) continue;
                    Tile w = row(g.W + d * H);
                    for (int v = 0; v < V; v++) s.v[v] = sigma<T>(a.v[v] += w.v[v]);
                    put(now += TILE, s);
                }
                Tile Ai = whole(A + i * TILE), Gi = whole(G + i * TILE);
                for (int64_t d = d1 - 1; d >= d0; d--) {
                    if (x[d]) {    // forward was: a_{d+1} = a_d + W_d x_d
                        settle(Ai, Gi, s);
                        T* sum = dW + (d - d0) * TILE;
                        for (int v = 0; v < V; v++) store(sum + v * L, load(sum + v * L) + Ai.v[v]);
                        s = whole(now -= TILE);
                    }
                    vec<T> dl_d = dl[d] + vec<T>{};    // forward was: l_d = b_d + V_d . h_d
                    Tile V_d = row(g.V + d * H);
                    T* sum = dV + (d - d0) * TILE;
                    for (int v = 0; v < V; v++) {
                        store(sum + v * L, fused(dl_d, s.v[v], load(sum + v * L)));
                        Gi.v[v] = fused(dl_d, V_d.v[v], Gi.v[v]);
                    }
                }
                put(A + i * TILE, Ai), put(G + i * TILE, Gi);
            }
            for (int64_t d = d0; d < d1; d++) {
                add(n0 == 0, g.dV + d * H, whole(dV + (d - d0) * TILE));
                add(n0 == 0, g.dW + d * H, whole(dW + (d - d0) * TILE));
            }
        }
        Tile s, dc = zero;    // forward was: a_1 = c
        for (int v = 0; v < V; v++) s.v[v] = sigma<T>(c.v[v]);
        for (int i = 0; i < rows; i++) {
            Tile Ai = whole(A + i * TILE), Gi = whole(G + i * TILE);
            settle(Ai, Gi, s);
            for (int v = 0; v < V; v++) dc.v[v] += Ai.v[v];
        }
        add(n0 == 0, g.dc, dc);
    }
}

// Tile `tile` of `width` vectors (1 ... 4); the last tile may be narrower, and its last vector partly empty
template <class T> static void tile_of_units(const Gradient<T>& g, int64_t tile, int width, T* work) {
    int64_t h0 = tile * width * LANES<T>, here = std::min<int64_t>(width * LANES<T>, g.H - h0);
    int64_t vectors = ceil_div(here, LANES<T>), last = here - (vectors - 1) * LANES<T>;
    if (vectors == 1) units<T, 1>(g, h0, last, work);
    if (vectors == 2) units<T, 2>(g, h0, last, work);
    if (vectors == 3) units<T, 3>(g, h0, last, work);
    if (vectors == 4) units<T, 4>(g, h0, last, work);
}

#else
// ---- tasks and entry points -----------------------------------------------------------------------------------------
namespace {

template <class T> int64_t pass_numbers(int64_t H) { return 2 * ROWS * padded<T>(H); }
template <class T> int64_t gradient_numbers(int64_t D) {
    return (GROUP * (2 + ceil_div(D, CHUNK)) + 3 * CHUNK + 1) * WIDEST * int64_t(64 / sizeof(T));
}

template <class T> void run_pass(const Pass<T>& p, void* workspace, int threads) {
    int64_t tasks = std::max(ceil_div(p.N, ROWS), std::min<int64_t>(threads, p.N));
    if (p.N > 4 * threads) tasks = whole(tasks, threads);    // the same number for each thread
    T* work = Arena(workspace).take<T>(threads * pass_numbers<T>(p.H));
    auto pass = BEST(pass<T>);
    parallel(tasks, threads, [&](int64_t task, int t) {
        T* a = work + t * pass_numbers<T>(p.H);
        pass(p, task * p.N / tasks, (task + 1) * p.N / tasks, a, a + ROWS * padded<T>(p.H));
    });
}

template <class T> void run_gradient(const Gradient<T>& g, void* workspace, int threads) {
    const int set = instruction_set();
    auto tile_of_units = OF_SET(set, tile_of_units<T>);
    int64_t lanes = OF_SET(set, LANES<T>), vectors = ceil_div(g.H, lanes);
    int width = int(std::clamp<int64_t>(ceil_div(vectors, threads), 1, WIDEST));
    T* work = Arena(workspace).take<T>(threads * gradient_numbers<T>(g.D));
    parallel(ceil_div(vectors, width), threads,
             [&](int64_t tile, int t) { tile_of_units(g, tile, width, work + t * gradient_numbers<T>(g.D)); });
}

}    // namespace

// Bytes of the workspace of either function below. dtype: 0 float32, 3 float64
extern "C" int64_t nade_cpu_workspace(int dtype, int64_t N, int64_t H, int threads) {
    const int64_t bytes = dtype == 0 ? 4 * pass_numbers<float>(H) : 8 * pass_numbers<double>(H);
    Arena arena;
    arena.take<char>(std::min<int64_t>(threads, N) * bytes);
    return arena.bytes();
}
extern "C" int64_t nade_backward_cpu_workspace(int dtype, int64_t D, int64_t H, int threads) {
    const int64_t bytes = dtype == 0 ? 4 * gradient_numbers<float>(D) : 8 * gradient_numbers<double>(D);
    Arena arena;
    arena.take<char>(std::min<int64_t>(threads, H) * bytes);
    return arena.bytes();
}

// logits (N, D), and x[:, known:] drawn with u (null if known = D). W is transposed, (D, H). Returns 0, or 1 for a bad
// argument.
extern "C" int nade_cpu(int dtype, const void* u, void* x, int64_t known, const void* W, const void* V, const void* b,
                        const void* c, void* logits, void* workspace, int64_t N, int64_t D, int64_t H, int threads) {
    if (N < 0 || D < 0 || H < 0 || threads < 1 || known < 0 || known > D) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Pass<T> p = {(const T*)u, (uint8_t*)x, known, (const T*)W, (const T*)V, (const T*)b, (const T*)c, (T*)logits,
                     N, D, H};
        run_pass(p, workspace, threads);
    });
}

// dW (transposed, (D, H)), dV (D, H), dc (H) from dl (N, D)
extern "C" int nade_backward_cpu(int dtype, const void* dl, const void* x, const void* W, const void* V, const void* c,
                                 void* dW, void* dV, void* dc, void* workspace, int64_t N, int64_t D, int64_t H,
                                 int threads) {
    if (N < 0 || D < 0 || H < 0 || threads < 1) return 1;
    return with_float_or_double(dtype, [&](auto zero) {
        using T = decltype(zero);
        Gradient<T> g = {
            (const T*)dl, (const uint8_t*)x, (const T*)W, (const T*)V, (const T*)c, (T*)dW, (T*)dV, (T*)dc, N, D, H};
        run_gradient(g, workspace, threads);
    });
}
#endif
