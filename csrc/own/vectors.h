// CUDA's vectors, under g++: as large as one load of a GPU, and aligned like it. may_alias: any memory may be read
// through them. float4 and double2 stand in emulator/words.h.
#pragma once
#include "../gpu.h"

#define WHOLE(n, T) __attribute__((may_alias, aligned(n * sizeof(T) < 16 ? n * sizeof(T) : 16)))
#define VECTOR1(T, name)                                \
    struct __attribute__((may_alias)) name##1 { T x; }; \
    static inline name##1 make_##name##1(T x) { return {x}; }
#define VECTOR2(T, name)                    \
    struct WHOLE(2, T) name##2 { T x, y; }; \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }
#define VECTOR3(T, name)                                      \
    struct __attribute__((may_alias)) name##3 { T x, y, z; }; \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }
#define VECTOR4(T, name)                          \
    struct WHOLE(4, T) name##4 { T x, y, z, w; }; \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define VECTORS(T, name) VECTOR1(T, name) VECTOR2(T, name) VECTOR3(T, name) VECTOR4(T, name)
VECTORS(signed char, char)
VECTORS(unsigned char, uchar)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(int, int)
VECTORS(long long, longlong)
VECTORS(unsigned long long, ulonglong)
VECTOR1(unsigned, uint)
VECTOR2(unsigned, uint)
VECTOR4(unsigned, uint)
VECTOR1(float, float)
VECTOR2(float, float)
VECTOR3(float, float)
VECTOR1(double, double)
VECTOR3(double, double)
VECTOR4(double, double)
#undef VECTORS
#undef VECTOR4
#undef VECTOR3
#undef VECTOR2
#undef VECTOR1
#undef WHOLE
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
