// Vectors for the screens of csrc/nearest_code.cu: a power of two times a rounded vector whose largest entry is about
// 1. Numbers in brackets are the inequalities of docs/exact-argmin.md.
#pragma once
#include "gpu.h"

constexpr int BN = 128, BK = 128;    // rows and codes of a tile of the screen
constexpr int THREADS = 256;         // of a block
constexpr int GROUPS = 8, SAMPLES = 4096;
constexpr int NOTHING = -5000;    // the exponent of a zero vector: below all others
// vectors 2^-REACH shorter than the longest code count as zero, with themselves as residual
constexpr int REACH = 60;

// The centre: the median of the means of eight groups of codes, so that one code far away spoils one group. Any finite
// centre is valid; a good one is near the codes.
template <class E> __global__ void centre_of_codes(const E* e, double* centre, int* unit, int64_t K, int64_t D) {
    __shared__ double mean[GROUPS][32];
    int column = threadIdx.x % 32, group = threadIdx.x / 32;
    // every step-th code is read
    int64_t d = blockIdx.x * int64_t(32) + column, step = ceil_div(K, SAMPLES);
    if (d == 0 && group == 0) *unit = NOTHING;
    double sum = 0;
    int count = 0;
    for (int64_t k = group * step; d < D && k < K; k += GROUPS * step) {
        double v = to_double(e[k * D + d]);
        if (fabs(v) < INFINITY) sum += v / SAMPLES, count++;
    }
    double mine = count ? sum / count * SAMPLES : INFINITY;
    mean[group][column] = mine;
    __syncthreads();
    int rank = 0, finite = 0;
    for (int g = 0; g < GROUPS; g++) {
        double other = mean[g][column];
        finite += fabs(other) < INFINITY;
        rank += other < mine || (other == mine && g < group);
    }
    if (d < D && rank == finite / 2) centre[d] = fabs(mine) < INFINITY ? mine : 0;
}

struct alignas(16) Packed {    // v - centre = 2^power (packed + residual)
    // |v - centre|^2 / 2 and bounds on its norm and on the residual's, all over 2^power; half = inf: not finite
    float half, norm, rest;
    int power;
};

__device__ __forceinline__ double warp_sum(double v) {
    for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}
__device__ __forceinline__ float rounded_up(double v) { return float(v * (1 + 0x1p-20)); }

// A warp owns a vector. P is what the screen multiplies: float or float16. Vectors from N on and entries from D on are
// padding.
template <class T, class P>
__global__ void pack(const T* v, const double* centre, P* packed, Packed* about, int* unit, int64_t N, int64_t D,
                     int64_t DP) {
    int64_t n = (blockIdx.x * int64_t(THREADS) + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    v += n * D, packed += n * DP;
    double top = 0;
    bool finite = n < N;
    for (int64_t d = lane; finite && d < D; d += 32) {
        double t = fabs(__dsub_rn(to_double(v[d]), centre[d]));
        finite = t < INFINITY;
        top = fmax(top, t);
    }
    finite = __all_sync(0xffffffffu, finite);
    for (int offset = 16; offset > 0; offset /= 2) top = fmax(top, __shfl_xor_sync(0xffffffffu, top, offset));
    int power = top > 0 ? max(ilogb(top), -500) : NOTHING;
    double scale = ldexp(1.0, -min(max(power, -500), 500));
    double norm = 0, kept = 0, rest = 0;
    for (int64_t d = lane; d < DP; d += 32) {
        double t = finite && d < D ? __dsub_rn(to_double(v[d]), centre[d]) * scale : 0.0;
        P p = from_real<P>(float(t));
        double x = to_double(p), r = t - x;
        packed[d] = p;
        norm += t * t, kept += x * x, rest += r * r;
    }
    norm = warp_sum(norm), kept = warp_sum(kept), rest = warp_sum(rest);
    if (lane) return;
    double longest = sqrt(fmax(norm, kept));
    rest = sqrt(rest) + 0x1p-50 * longest;    // (1)
    about[n] = Packed{finite ? float(norm / 2) : INFINITY, rounded_up(longest), rounded_up(rest), power};
    if (unit && finite) atomicMax(unit, power);
}

struct alignas(16) Placed {    // Packed, in units of 2^unit
    float half, norm, rest, scale;
};

__device__ __forceinline__ Placed place(Packed v, int unit) {
    int p = v.power - unit;
    // such a code is at distance infinity: it is never kept
    if (!(v.half < INFINITY)) return Placed{INFINITY, 0, 0, 0};
    // (2): packed as zero; the whole vector is residual
    if (p < -REACH) return Placed{0, ldexpf(v.norm, -REACH), ldexpf(v.norm, -REACH), 0};
    return Placed{ldexpf(v.half, 2 * p), ldexpf(v.norm, p), ldexpf(v.rest, p), ldexpf(1.0f, p)};
}

// Block `tile` owns BK codes. widest[tile] is the largest half, norm and rest among them, without the codes that are 16
// times as long as usual in the tile (the geometric mean), with which the bound of the others would be useless; its
// scale is 1 if there are such codes.
__global__ void place_codes(const Packed* about, const int* unit, Placed* code, Placed* widest) {
    __shared__ int count, sum, far, half, norm, rest;
    int64_t k = blockIdx.x * int64_t(BK) + threadIdx.x;
    Placed mine = place(about[k], *unit);
    code[k] = mine;
    if (threadIdx.x == 0) count = sum = far = half = norm = rest = 0;
    __syncthreads();
    bool usual = mine.half < INFINITY && mine.norm > 0;
    int power = usual ? ilogbf(mine.norm) : 0;
    if (usual) atomicAdd(&count, 1), atomicAdd(&sum, power);
    __syncthreads();
    if (usual && power * count > sum + 4 * count) usual = false, atomicMax(&far, 1);
    if (usual) {    // floats from 0 on have the order of their bits
        atomicMax(&half, __float_as_int(mine.half));
        atomicMax(&norm, __float_as_int(mine.norm));
        atomicMax(&rest, __float_as_int(mine.rest));
    }
    __syncthreads();
    if (threadIdx.x == 0)
        widest[blockIdx.x] = Placed{__int_as_float(half), __int_as_float(norm), __int_as_float(rest), float(far)};
}
