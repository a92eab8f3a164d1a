// What CUDA adds to C++ and needs no machine: vectors, 16-bit floats, bit patterns, rounding. What no kernel uses yet
// is marked "tests only": tests/kernels/test_emulator.cu alone runs it.
#pragma once
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
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
struct __attribute__((may_alias, aligned(16))) float4 {
    float x, y, z, w;
};
struct __attribute__((may_alias, aligned(16))) double2 {    // tests only
    double x, y;
};
static inline double2 make_double2(double x, double y) { return {x, y}; }    // tests only

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
static inline float __int_as_float(int v) { return same_bits<float>(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }

// ---- 16-bit floats: sign, 5 (8) bits of exponent, 10 (7) of fraction ------------------------------------------------
#define SIXTEEN_BITS(name)                                                               \
    struct name {                                                                        \
        uint16_t bits;                                                                   \
        name() = default;                                                                \
        template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> name(T v); \
        operator float() const;                                                          \
    };
SIXTEEN_BITS(__half)
SIXTEEN_BITS(__nv_bfloat16)
#undef SIXTEEN_BITS

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
    return same_bits<__half>(uint16_t(sign | bits));
}
static inline float __bfloat162float(__nv_bfloat16 b) { return same_bits<float>(uint32_t(b.bits) << 16); }
static inline __nv_bfloat16 __float2bfloat16_rn(float v) {
    uint32_t u = same_bits<uint32_t>(v);
    bool nan = (u & 0x7fffffff) > 0x7f800000;
    return same_bits<__nv_bfloat16>(uint16_t(nan ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16));
}

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
template <class T, class> __half::__half(T v) : bits(__double2half(double(v)).bits) {}
template <class T, class> __nv_bfloat16::__nv_bfloat16(T v) : bits(__double2bfloat16(double(v)).bits) {}
inline __half::operator float() const { return __half2float(*this); }
inline __nv_bfloat16::operator float() const { return __bfloat162float(*this); }

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
ROUNDED(__fadd, float, (float a, float b), a + b, a, b)    // tests only
ROUNDED(__fsub, float, (float a, float b), a - b, a, b)    // tests only
ROUNDED(__fmul, float, (float a, float b), (a * b), a, b)    // tests only
ROUNDED(__double2float, float, (double a), float(a), a)    // tests only
#undef ROUNDED
#undef ROUNDED_BY
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }

// ---- the smaller and the larger of two numbers, of every type, so that none is converted ----------------------------
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
