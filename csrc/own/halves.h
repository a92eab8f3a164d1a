// Arithmetic on numbers of 16 bits and on pairs of them, under g++: cuda_fp16.h and cuda_bf16.h include it. A float
// holds the sum, the product and the quotient of two of them so exactly that one more rounding gives what a GPU gives.
#pragma once
#include "vectors.h"

using half = __half;
using nv_bfloat16 = __nv_bfloat16;

struct __attribute__((may_alias, aligned(4))) __half2 {
    __half x, y;
};
struct __attribute__((may_alias, aligned(4))) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
using half2 = __half2;
using nv_bfloat162 = __nv_bfloat162;

#define OF_TWO(H, name, symbol)                                                       \
    static inline H operator symbol(H a, H b) { return H(float(a) symbol float(b)); } \
    static inline H& operator symbol## = (H & a, H b) { return a = a symbol b; }      \
    static inline H name(H a, H b) { return a symbol b; }
#define OF_PAIRS(P, name, symbol)                                                          \
    static inline P operator symbol(P a, P b) { return {a.x symbol b.x, a.y symbol b.y}; } \
    static inline P& operator symbol## = (P & a, P b) { return a = a symbol b; }           \
    static inline P name(P a, P b) { return a symbol b; }
#define COMPARED(H, name, symbol)                                                     \
    static inline bool operator symbol(H a, H b) { return float(a) symbol float(b); } \
    static inline bool name(H a, H b) { return a symbol b; }
#define OF_ONE(H, name, result) \
    static inline H name(H a) { return H(result); }
#define ARITHMETIC(H, P)                                                                              \
    OF_TWO(H, __hadd, +)                                                                              \
    OF_TWO(H, __hsub, -)                                                                              \
    OF_TWO(H, __hmul, *)                                                                              \
    OF_TWO(H, __hdiv, /)                                                                              \
    OF_PAIRS(P, __hadd2, +)                                                                           \
    OF_PAIRS(P, __hsub2, -)                                                                           \
    OF_PAIRS(P, __hmul2, *)                                                                           \
    OF_PAIRS(P, __h2div, /)                                                                           \
    COMPARED(H, __heq, ==)                                                                            \
    COMPARED(H, __hne, !=)                                                                            \
    COMPARED(H, __hlt, <)                                                                             \
    COMPARED(H, __hle, <=)                                                                            \
    COMPARED(H, __hgt, >)                                                                             \
    COMPARED(H, __hge, >=)                                                                            \
    OF_ONE(H, operator-, -float(a))                                                                   \
    OF_ONE(H, __hneg, -float(a))                                                                      \
    OF_ONE(H, __habs, fabsf(a))                                                                       \
    OF_ONE(H, hexp, expf(a))                                                                          \
    OF_ONE(H, hlog, logf(a))                                                                          \
    OF_ONE(H, hsqrt, sqrtf(a))                                                                        \
    OF_ONE(H, hrsqrt, 1 / sqrtf(a))                                                                   \
    OF_ONE(H, hrcp, 1 / float(a))                                                                     \
    static inline bool __hisnan(H a) { return float(a) != float(a); }                                 \
    static inline H __hmax(H a, H b) { return H(fmaxf(a, b)); }                                       \
    static inline H __hmin(H a, H b) { return H(fminf(a, b)); }                                       \
    static inline H __hfma(H a, H b, H c) { return H(double(float(a)) * float(b) + float(c)); }       \
    static inline P __hneg2(P a) { return {-a.x, -a.y}; }                                             \
    static inline P __hmax2(P a, P b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                \
    static inline P __hmin2(P a, P b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                \
    static inline P __hfma2(P a, P b, P c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
    static inline float __low2float(P a) { return a.x; }                                              \
    static inline float __high2float(P a) { return a.y; }
ARITHMETIC(__half, __half2)
ARITHMETIC(__nv_bfloat16, __nv_bfloat162)
#undef ARITHMETIC
#undef OF_ONE
#undef COMPARED
#undef OF_PAIRS
#undef OF_TWO

// ---- conversions ----------------------------------------------------------------------------------------------------
#define CONVERSIONS(H, P, one, two, to_pair, to_floats)                            \
    static inline H __float2##one(float v) { return H(v); }                        \
    static inline P __float2##two##_rn(float v) { return {H(v), H(v)}; }           \
    static inline P __floats2##two##_rn(float a, float b) { return {H(a), H(b)}; } \
    static inline P __float22##two##_rn(float2 v) { return {H(v.x), H(v.y)}; }     \
    static inline float2 to_floats(P a) { return {a.x, a.y}; }                     \
    static inline P to_pair(H a) { return {a, a}; }                                \
    static inline P __halves2##two(H a, H b) { return {a, b}; }                    \
    static inline P make_##two(H a, H b) { return {a, b}; }                        \
    static inline H __low2##one(P a) { return a.x; }                               \
    static inline H __high2##one(P a) { return a.y; }
CONVERSIONS(__half, __half2, half, half2, __half2half2, __half22float2)
CONVERSIONS(__nv_bfloat16, __nv_bfloat162, bfloat16, bfloat162, __bfloat162bfloat162, __bfloat1622float2)
#undef CONVERSIONS
