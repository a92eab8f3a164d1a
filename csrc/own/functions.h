// Functions of CUDA that need no machine, under g++. Those that err stand in emulator/intrinsics.h, and those that
// exchange between lanes in emulator/warp.h.
#pragma once
#include "../gpu.h"
#include <cmath>

// ---- bits -----------------------------------------------------------------------------------------------------------
static inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline unsigned __brev(unsigned v) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (v >> i & 1) << (31 - i);
    return reversed;
}
static inline unsigned long long __brevll(unsigned long long v) {
    return (unsigned long long)__brev(unsigned(v)) << 32 | __brev(unsigned(v >> 32));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned which) {
    unsigned long long bytes = (unsigned long long)y << 32 | x;
    unsigned chosen = 0;
    for (int i = 0; i < 4; i++) chosen |= unsigned(bytes >> 8 * (which >> 4 * i & 7) & 0xff) << 8 * i;
    return chosen;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((unsigned long long)high << 32 | low) << (shift & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((unsigned long long)high << 32 | low) >> (shift & 31));
}
static inline unsigned __float_as_uint(float v) { return same_bits<unsigned>(v); }
static inline float __uint_as_float(unsigned v) { return same_bits<float>(v); }
static inline long long __double_as_longlong(double v) { return same_bits<long long>(v); }
static inline double __longlong_as_double(long long v) { return same_bits<double>(v); }

// ---- integers -------------------------------------------------------------------------------------------------------
static inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __mul24(int a, int b) { return int((unsigned(a) << 8 >> 8) * (unsigned(b) << 8 >> 8)); }
static inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffff) * (b & 0xffffff); }

// ---- numbers --------------------------------------------------------------------------------------------------------
static inline float __saturatef(float v) { return fminf(fmaxf(v, 0), 1); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float v) { return 1 / v; }
static inline float __fsqrt_rn(float v) { return sqrtf(v); }
static inline double rsqrt(double v) { return 1 / sqrt(v); }
static inline float normcdff(float v) { return float(erfc(-double(v) * M_SQRT1_2) / 2); }
static inline void genmini_sincosf(float v, float* sine, float* cosine) { *sine = __sinf(v), *cosine = __cosf(v); }
static inline float genmini_tanf(float v) { return __fdividef(__sinf(v), __cosf(v)); }
#define __sincosf genmini_sincosf    // glibc has declared functions of these names
#define __tanf genmini_tanf
static inline float __int2float_rn(int v) { return float(v); }
static inline float __uint2float_rn(unsigned v) { return float(v); }
// Of a number beyond int the nearest int, of NaN zero
#define TO_INT(name, rounded)                            \
    static inline int name(float v) {                    \
        return v != v ? 0 : v >= 0x1p31f ? INT_MAX       \
                        : v < -0x1p31f   ? INT_MIN       \
                                         : int(rounded); \
    }
TO_INT(__float2int_rn, nearbyintf(v))
TO_INT(__float2int_rz, truncf(v))
TO_INT(__float2int_rd, floorf(v))
TO_INT(__float2int_ru, ceilf(v))
#undef TO_INT
