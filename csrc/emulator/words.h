// What CUDA adds to C++ and needs no machine: vectors, 16-bit floats, bit patterns, rounding.
#pragma once
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <math.h>
#include <type_traits>

// ---- vectors: as large as one load of a GPU, and aligned like it. may_alias: any memory may be read through them ----
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define VECTORS(T, name)                                                                                           \
    struct __attribute__((may_alias, aligned(2 * sizeof(T)))) name##2 { T x, y; };                                 \
    struct __attribute__((may_alias, aligned(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16))) name##4 { T x, y, z, w; }; \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                              \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(char, char)
VECTORS(unsigned char, uchar)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(long long, longlong)
VECTORS(unsigned long long, ulonglong)
VECTORS(float, float)
VECTORS(double, double)
#undef VECTORS
struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};
static inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
static inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }

// ---- bit patterns ---------------------------------------------------------------------------------------------------
namespace emulator {
template <class To, class From> To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
}    // namespace emulator
using emulator::same_bits;
static inline int __float_as_int(float v) { return same_bits<int>(v); }
static inline unsigned __float_as_uint(float v) { return same_bits<unsigned>(v); }
static inline float __int_as_float(int v) { return same_bits<float>(v); }
static inline float __uint_as_float(unsigned v) { return same_bits<float>(v); }
static inline long long __double_as_longlong(double v) { return same_bits<long long>(v); }
static inline double __longlong_as_double(long long v) { return same_bits<double>(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline unsigned __brev(unsigned v) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (v >> i & 1) << (31 - i);
    return reversed;
}

// ---- 16-bit floats: sign, 5 (8) bits of exponent, 10 (7) of fraction ------------------------------------------------
struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};

static inline float __half2float(__half h) {
    uint32_t sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 0x3ff;
    // zero and subnormal: times 2^-24
    if (exponent == 0) return same_bits<float>(sign | same_bits<uint32_t>(fraction * 0x1p-24f));
    if (exponent == 31) return same_bits<float>(sign | 0x7f800000u | fraction << 13);               // infinity and NaN
    // the bias goes from 15 to 127
    return same_bits<float>(sign | (exponent + 112) << 23 | fraction << 13);
}
static inline __half __float2half_rn(float v) {
    uint32_t u = same_bits<uint32_t>(v), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    uint32_t bits;
    if (a > 0x7f800000) bits = 0x7e00 | (a >> 13 & 0x3ff);                                           // NaN stays NaN
    // >= 65520 rounds to infinity
    else if (a >= 0x477ff000) bits = 0x7c00;
    // < 2^-14: 0.5 + v ends at 2^-24
    else if (a < 0x38800000) bits = same_bits<uint32_t>(same_bits<float>(a) + 0.5f) - 0x3f000000;
    // to nearest, ties to even
    else bits = (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13;
    return {uint16_t(sign | bits)};
}
static inline float __bfloat162float(__nv_bfloat16 b) { return same_bits<float>(uint32_t(b.bits) << 16); }
static inline __nv_bfloat16 __float2bfloat16_rn(float v) {
    uint32_t u = same_bits<uint32_t>(v);
    if ((u & 0x7fffffff) > 0x7f800000) return {uint16_t(u >> 16 | 0x40)};
    return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

static inline __half __float2half(float v) { return __float2half_rn(v); }
static inline __nv_bfloat16 __float2bfloat16(float v) { return __float2bfloat16_rn(v); }
static inline unsigned short __half_as_ushort(__half h) { return h.bits; }
static inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.bits; }
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }

// A double must round once: it first becomes a float whose last bit is odd if anything was lost, so that no false tie
// arises.
static inline float float_to_odd(double v) {
    float f = float(v);
    if (double(f) == v || v != v) return f;
    if (fabs(double(f)) > fabs(v)) f = nextafterf(f, 0);
    return same_bits<float>(same_bits<uint32_t>(f) | 1);
}
static inline __half __double2half(double v) { return __float2half_rn(float_to_odd(v)); }
static inline __nv_bfloat16 __double2bfloat16(double v) { return __float2bfloat16_rn(float_to_odd(v)); }

// ---- arithmetic with a stated rounding: _rn to nearest, _rz toward zero, _ru up, _rd down. Nothing is fused ---------
namespace emulator {
template <class T> void hide(T& v) {    // the compiler assumes nothing about v, and moves nothing past here
    asm volatile("" : "+m"(v)::"memory");
}
template <int mode, class To, class F, class... T> To rounding(F operation, T... v) {
    int before = fegetround();
    fesetround(mode);
    (hide(v), ...);
    To result = operation(v...);
    hide(result);
    fesetround(before);
    return result;
}
template <class I> I to_integer(double v) {    // out of range: the nearest integer of the type; NaN: 0
    constexpr I lowest = std::numeric_limits<I>::min(), highest = std::numeric_limits<I>::max();
    double i = nearbyint(v);
    if (v != v) return 0;
    if (i <= double(lowest)) return lowest;
    return i >= double(highest) ? highest : I(i);
}
}    // namespace emulator
#define ROUNDED_BY(mode, name, To, parameters, result, ...)                                       \
    static inline To name parameters {                                                            \
        return emulator::rounding<mode, To>([] parameters -> To { return result; }, __VA_ARGS__); \
    }
#define ROUNDED(name, To, parameters, result, ...)                            \
    static inline To name##_rn parameters { return result; }                  \
    ROUNDED_BY(FE_TOWARDZERO, name##_rz, To, parameters, result, __VA_ARGS__) \
    ROUNDED_BY(FE_UPWARD, name##_ru, To, parameters, result, __VA_ARGS__)     \
    ROUNDED_BY(FE_DOWNWARD, name##_rd, To, parameters, result, __VA_ARGS__)
ROUNDED(__fadd, float, (float a, float b), a + b, a, b)
ROUNDED(__fsub, float, (float a, float b), a - b, a, b)
ROUNDED(__fmul, float, (float a, float b), (a * b), a, b)
ROUNDED(__fdiv, float, (float a, float b), a / b, a, b)
ROUNDED(__fmaf, float, (float a, float b, float c), fmaf(a, b, c), a, b, c)
ROUNDED(__fsqrt, float, (float a), sqrtf(a), a)
ROUNDED(__frcp, float, (float a), 1.0f / a, a)
ROUNDED(__dadd, double, (double a, double b), a + b, a, b)
ROUNDED(__dsub, double, (double a, double b), a - b, a, b)
ROUNDED(__dmul, double, (double a, double b), (a * b), a, b)
ROUNDED(__ddiv, double, (double a, double b), a / b, a, b)
ROUNDED(__fma, double, (double a, double b, double c), fma(a, b, c), a, b, c)
ROUNDED(__dsqrt, double, (double a), sqrt(a), a)
ROUNDED(__double2float, float, (double a), float(a), a)
ROUNDED(__int2float, float, (int a), float(a), a)
ROUNDED(__uint2float, float, (unsigned a), float(a), a)
ROUNDED(__ll2float, float, (long long a), float(a), a)
ROUNDED(__ll2double, double, (long long a), double(a), a)
ROUNDED(__float2int, int, (float a), emulator::to_integer<int>(a), a)
ROUNDED(__float2uint, unsigned, (float a), emulator::to_integer<unsigned>(a), a)
ROUNDED(__float2ll, long long, (float a), emulator::to_integer<long long>(a), a)
ROUNDED(__double2int, int, (double a), emulator::to_integer<int>(a), a)
ROUNDED(__double2uint, unsigned, (double a), emulator::to_integer<unsigned>(a), a)
ROUNDED(__double2ll, long long, (double a), emulator::to_integer<long long>(a), a)
#undef ROUNDED
#undef ROUNDED_BY

// ---- mathematics that is not in <math.h>, or not under this name; __expf and its like are as exact as expf here -----
static inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
static inline double rsqrt(double v) { return 1.0 / sqrt(v); }
#define __expf(v) expf(v)    // macros, because glibc reserves these names
#define __logf(v) logf(v)
#define __log2f(v) log2f(v)
#define __powf(a, b) powf(a, b)
#define __sinf(v) sinf(v)
#define __cosf(v) cosf(v)
#define __tanhf(v) tanhf(v)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float v) { return v > 0 ? v < 1 ? v : 1.0f : 0.0f; }
#define MINIMUM_MAXIMUM(T)                                  \
    static inline T min(T a, T b) { return b < a ? b : a; } \
    static inline T max(T a, T b) { return a < b ? b : a; }
MINIMUM_MAXIMUM(int)
MINIMUM_MAXIMUM(unsigned)
MINIMUM_MAXIMUM(long)
MINIMUM_MAXIMUM(unsigned long)
MINIMUM_MAXIMUM(long long)
MINIMUM_MAXIMUM(unsigned long long)
#undef MINIMUM_MAXIMUM
static inline float min(float a, float b) { return fminf(a, b); }    // of a number and NaN: the number, as on a GPU
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// ---- memory ---------------------------------------------------------------------------------------------------------
template <class T> T __ldg(const T* p) { return *p; }     // hints to the caches of a GPU
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
