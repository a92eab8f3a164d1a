// A reduction of several values at once over the lanes of a warp.
// Rooms: kernels/nearest_code.py, kernels/made_sample.py
#pragma once
#include "gpu.h"

// C values v of each of L neighbouring lanes -> the reduction over these lanes of one value, number folded<C, L>().
// In each step a lane gives half of its values away and gets the partner's part of the others: C - 1 shuffles and, once
// one value is left, one a step, where each value by itself takes log2(L). The tree is that of
// v = op(v, __shfl_xor_sync(..., v, offset)) for offset = L / 2, ..., 1: an op that commutes gives the same bits.
template <int C, int L, class T, class Op> __device__ __forceinline__ T fold(T* v, Op op) {
    static_assert(C <= L, "a lane keeps one value");
    if constexpr (L > 1) {
        const bool upper = threadIdx.x & (L / 2);
        if constexpr (C > 1) {
#pragma unroll
            for (int i = 0; i < C / 2; i++) {
                T given = upper ? v[i] : v[i + C / 2], own = upper ? v[i + C / 2] : v[i];
                v[i] = op(own, __shfl_xor_sync(0xffffffffu, given, L / 2));
            }
        } else {
            v[0] = op(v[0], __shfl_xor_sync(0xffffffffu, v[0], L / 2));
        }
        return fold<(C > 1 ? C / 2 : 1), L / 2>(v, op);
    }
    return v[0];
}
template <int C, int L> __device__ __forceinline__ int folded() { return threadIdx.x % L / (L / C); }
