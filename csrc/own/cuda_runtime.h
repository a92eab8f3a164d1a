// What a .cu of a user may ask of CUDA besides gpu.h, under g++: memory, vectors, fast functions. The headers beside
// this one only include it. What is not here g++ names, with the line that asks for it.
#pragma once
#include "call.h"

constexpr int warpSize = 32;

// ---- memory: that of the host and of the GPU are one ----------------------------------------------------------------
enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyHostToHost,
                      cudaMemcpyHostToDevice,
                      cudaMemcpyDeviceToHost,
                      cudaMemcpyDeviceToDevice,
                      cudaMemcpyDefault };
using cudaStream_t = void*;

namespace genmini {
template <class T> cudaError_t allocate(T** pointer, double bytes, std::string written) {    // as "(void**)&x"
    size_t end = written.find_last_not_of(" )") + 1, start = end;
    while (start && (isalnum(written[start - 1]) || written[start - 1] == '_')) start--;
    std::string name = written.substr(start, end - start);
    *pointer = (T*)memory(bytes, name.c_str());
    using Number = std::conditional_t<std::is_void_v<T>, char, T>;
    std::string of = std::is_void_v<T> ? "bytes " : std::string(type_name<Number>()) + " ";
    named(*pointer, (name + " " + of + std::to_string(int64_t(bytes) / int64_t(sizeof(Number)))).c_str());
    return cudaSuccess;
}
}    // namespace genmini
#define cudaMalloc(pointer, bytes) ::genmini::allocate(pointer, double(bytes), #pointer)
#define cudaMallocManaged(pointer, bytes) ::genmini::allocate(pointer, double(bytes), #pointer)
static inline cudaError_t cudaFree(void*) { return cudaSuccess; }    // it lives as long as the process
static inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    memmove(to, from, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    memset(to, value, bytes);
    return cudaSuccess;
}
// A launch that fails ends the call: there is no error left to ask for
static inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
static inline cudaError_t cudaDeviceReset() { return cudaSuccess; }
static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
static inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }

// ---- vectors: as large as one load of a GPU, and aligned like it ----------------------------------------------------
#define VECTORS(T, name)                                                           \
    struct __attribute__((may_alias, aligned(2 * sizeof(T)))) name##2 { T x, y; }; \
    struct name##3 { T x, y, z; };                                                 \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }              \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }
#define VECTOR4(T, name)                                                                 \
    struct __attribute__((may_alias, aligned(4 * sizeof(T)))) name##4 { T x, y, z, w; }; \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(float, float)
VECTORS(int, int)
VECTOR4(int, int)
VECTOR4(unsigned, uint)
#undef VECTORS
#undef VECTOR4
struct __attribute__((may_alias, aligned(8))) uint2 {
    unsigned x, y;
};
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- functions; those that err stand in emulator/intrinsics.h -------------------------------------------------------
static inline float __saturatef(float v) { return fminf(fmaxf(v, 0), 1); }
static inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
