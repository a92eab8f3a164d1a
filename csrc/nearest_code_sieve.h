// The sieve of csrc/nearest_code.cu: both screens pass their tiles of products through it, and it keeps the codes that
// may be nearest. Numbers in brackets are the inequalities of docs/exact-argmin.md.
#pragma once
#include "lanes.h"
#include "nearest_code_pack.h"
#include "wide.h"

constexpr int LIST = 16;              // codes that a row may keep while it is screened
// beyond 2^+-SAFE, double itself over- or underflows when it squares: the screen proves nothing
constexpr int SAFE = 400;
constexpr int64_t LONGEST = 65536;    // the bounds are proven up to this D

struct Survivor {
    int k;
    float low;    // at most the score of code k
};

struct Tables {    // the workspace (see lay_out)
    double* centre;
    int* unit;
    Packed *about_code, *about_row;
    Placed *code, *widest;
    void *e, *z;            // packed codes (KP, DP) and rows (NP, DP)
    float* bound;           // (NP, S): at least the score of some code
    int* count;             // (NP, S): survivors, or LIST + 1: the screen proves nothing
    Survivor* list;         // (NP, S, LIST)
    int64_t N, K, D, NP, KP, DP, S;    // S: the codes are split over S blocks
};

struct alignas(16) Row {    // score = half - scale * code.scale * dot, within the margin
    float scale, g0, g1, g2;
};
// (7)
__device__ __forceinline__ float margin(Row r, Placed c) {
    return r.g0 + r.g1 * c.norm + r.g2 * c.rest + 0x1p-22f * c.half;
}

struct Sieve {    // in shared memory
    Row rows[BN + BN / 4];
    alignas(16) float half[BK], scale[BK];    // of the codes; apart, so that neighbouring codes are one load
    int bound[BN], count[BN];
    // two rows of padding for eight: rows r, r + 8, r + 16, r + 24 and their neighbours lie in different banks
    __device__ __forceinline__ Row& row(int r) { return rows[r + r / 8 * 2]; }
};

// float <-> int of the same order, so that atomicMin on ints takes the smaller float
__device__ __forceinline__ int ordered(float f) { return __float_as_int(f) ^ (__float_as_int(f) >> 31 & 0x7fffffff); }
__device__ __forceinline__ float unordered(int i) { return __int_as_float(i ^ (i >> 31 & 0x7fffffff)); }

// gamma: |computed dot - dot| <= gamma |x| |y|
__device__ __forceinline__ void open(Sieve& s, const Tables& w, float gamma) {
    int r = threadIdx.x;
    if (r >= BN) return;
    Packed about = w.about_row[blockIdx.x * int64_t(BN) + r];
    int unit = *w.unit;
    Placed x = place(about, unit);
    // (8)
    bool proven =
        about.half < INFINITY && about.power <= unit + REACH && unit >= -SAFE && unit <= SAFE && w.D <= LONGEST;
    const float up = 1 + 0x1p-10f;    // covers the roundings of these lines and of every sum below  (6)
    float g0 = w.D * 0x1p-50f * x.norm * x.norm + 0x1p-100f, g1 = x.rest + x.norm * (gamma + 0x1p-22f);
    s.row(r) = proven ? Row{x.scale, up * g0, up * g1, up * x.norm} : Row{0, 0, 0, 0};
    s.bound[r] = ordered(proven ? INFINITY : -INFINITY);    // -infinity: no code passes
    s.count[r] = 0;
}

__device__ __forceinline__ Survivor* list_of(const Tables& w, int r) {    // list[BN blockIdx.x + r, blockIdx.y, :]
    return w.list + ((blockIdx.x * int64_t(BN) + r) * w.S + blockIdx.y) * LIST;
}

// A thread owns dot(i, j) of rows row(i) and codes col(j) of the tile: RUN neighbours col(j), col(j + 1), ... SHARE
// neighbouring lanes own the same rows.
template <int RN, int RK, int RUN, int SHARE, class RowOf, class ColOf, class Dot>
__device__ __forceinline__ void sift(Sieve& s, const Tables& w, int64_t tile, RowOf row, ColOf col, Dot dot) {
    const Placed widest = w.widest[tile];
    if (threadIdx.x < BK) {
        Placed c = w.code[tile * BK + threadIdx.x];
        // a far code does not lower the bound; the second loop tests it by itself
        bool far = c.norm > widest.norm;
        s.half[threadIdx.x] = far ? INFINITY : c.half, s.scale[threadIdx.x] = far ? 0 : c.scale;
    }
    __syncthreads();
    float lowest[RN], scale[RN];
#pragma unroll
    for (int i = 0; i < RN; i++) lowest[i] = INFINITY, scale[i] = s.row(row(i)).scale;
#pragma unroll
    for (int j = 0; j < RK; j += RUN) {    // a code is loaded once for all rows
        using Run = Wide<float, RUN>;
        Run half = *(const Run*)&s.half[col(j)], of_code = *(const Run*)&s.scale[col(j)];
#pragma unroll
        for (int c = 0; c < RUN; c++)
#pragma unroll
            for (int i = 0; i < RN; i++)
                lowest[i] = fminf(lowest[i], fmaf(-scale[i], of_code.v[c] * dot(i, j + c), half.v[c]));
    }
    // from here on a lane speaks for one row, and lanes that share rows ask for different ones
    const int mine = row(folded<RN, SHARE>());
    const float low = fold<RN, SHARE>(lowest, [](float a, float b) { return fminf(a, b); });
    const float least = margin(s.row(mine), widest);
    atomicMin(&s.bound[mine], ordered(low + least));
    __syncthreads();
    bool may = low - least <= unordered(s.bound[mine]) || widest.scale != 0;
    unsigned rows = __ballot_sync(0xffffffffu, may);    // the usual case: 0, no code here can be nearest
#pragma unroll
    for (int i = 0; i < RN && rows; i++) {
        if (!(rows >> (threadIdx.x % 32 / SHARE * SHARE + i * (SHARE / RN)) & 1)) continue;
        Row r = s.row(row(i));
        float bound = unordered(s.bound[row(i)]), most = margin(r, widest);
#pragma unroll
        for (int j = 0; j < RK; j++) {
            Placed c = w.code[tile * BK + col(j)];
            float score = fmaf(-r.scale, c.scale * dot(i, j), c.half);
            // the tile's margin excludes most codes before their own is computed (8 rows leave no registers for it)
            if (RN < 8 && !(score - most <= bound) && widest.scale == 0) continue;
            float low = score - margin(r, c);
            if (!(low <= bound && score < INFINITY)) continue;
            int slot = atomicAdd(&s.count[row(i)], 1);
            if (slot < LIST) list_of(w, row(i))[slot] = Survivor{int(tile * BK + col(j)), low};
        }
    }
    __syncthreads();
    int r = threadIdx.x;    // make room: drop the codes that the bound, which has fallen, excludes
    if (r < BN && s.count[r] > LIST / 2 && s.count[r] <= LIST) {
        Survivor* list = list_of(w, r);
        int kept = 0;
        for (int i = 0; i < s.count[r]; i++)
            if (list[i].low <= unordered(s.bound[r])) list[kept++] = list[i];
        s.count[r] = kept;
    }
}

__device__ __forceinline__ void close(const Sieve& s, const Tables& w) {
    int r = threadIdx.x;
    __syncthreads();
    if (r >= BN) return;
    int64_t at = (blockIdx.x * int64_t(BN) + r) * w.S + blockIdx.y;
    w.bound[at] = unordered(s.bound[r]);
    w.count[at] = s.bound[r] == ordered(-INFINITY) ? LIST + 1 : s.count[r];
}
