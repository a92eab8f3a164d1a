// The two walks of csrc/nade.cpp, compiled by csrc/cpu/lanes.h once for each instruction set, in the words of
// csrc/cpu/vectors.h. Room: kernels/nade.py

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

// ---- the gradient: hidden units do not meet on the way back, so a tile of them is computed alone --------------------

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
    int64_t D = g.D, H = g.H, chunks = (D + CHUNK - 1) / CHUNK;
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
    auto settle = [](Tile& A, Tile& G, const Tile& s) {    // what has waited in G goes to A
        for (int v = 0; v < V; v++) A.v[v] = fused(G.v[v] * s.v[v], T(1) - s.v[v], A.v[v]), G.v[v] = vec<T>{};
    };
    const Tile zero = {}, c = row(g.c);
    for (int64_t n0 = 0; n0 == 0 || n0 < g.N; n0 += GROUP) {    // without rows: once, for the zeros
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
template <class T> static void units(const Gradient<T>& g, int64_t tile, int width, T* work) {
    int64_t h0 = tile * width * LANES<T>, here = std::min<int64_t>(width * LANES<T>, g.H - h0);
    int64_t vectors = (here + LANES<T> - 1) / LANES<T>, last = here - (vectors - 1) * LANES<T>;
    if (vectors == 1) units<T, 1>(g, h0, last, work);
    if (vectors == 2) units<T, 2>(g, h0, last, work);
    if (vectors == 3) units<T, 3>(g, h0, last, work);
    if (vectors == 4) units<T, 4>(g, h0, last, work);
}

template <class T> const Walks<T>& walks() {
    static const Walks<T> all = {LANES<T>, pass<T>, units<T>};
    return all;
}
