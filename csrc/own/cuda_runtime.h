// What a .cu of a user may ask of CUDA besides gpu.h, under g++: memory, streams, events, vectors, functions. The
// headers beside this one that have no text of their own only include it. What is not here g++ names, with the line
// that asks for it.
#pragma once
#include "call.h"
#include "functions.h"
#include "vectors.h"
#include <map>

constexpr int warpSize = 32;
using cudaStream_t = void*;

// ---- errors: a launch that fails ends the call, so that there is none left to ask for -------------------------------
enum cudaError_t { cudaSuccess,
                   cudaErrorInvalidValue,
                   cudaErrorMemoryAllocation };
using cudaError = cudaError_t;
static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
static inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess ? "no error" : error == cudaErrorInvalidValue ? "invalid argument"
                                                                              : "out of memory";
}
static inline const char* cudaGetErrorName(cudaError_t error) {
    return error == cudaSuccess             ? "cudaSuccess"
           : error == cudaErrorInvalidValue ? "cudaErrorInvalidValue"
                                            : "cudaErrorMemoryAllocation";
}

// ---- memory: that of the host and of the GPU are one ----------------------------------------------------------------
enum cudaMemcpyKind { cudaMemcpyHostToHost,
                      cudaMemcpyHostToDevice,
                      cudaMemcpyDeviceToHost,
                      cudaMemcpyDeviceToDevice,
                      cudaMemcpyDefault };

namespace genmini {
template <class T> cudaError_t allocate(T** pointer, double bytes, std::string written) {    // as "(void**)&x"
    size_t end = written.find_last_not_of(" )") + 1, start = end;
    while (start && (isalnum(written[start - 1]) || written[start - 1] == '_')) start--;
    std::string name = written.substr(start, end - start);
    *pointer = (T*)memory(bytes, name.c_str());
    using Number = std::conditional_t<std::is_void_v<T>, char, T>;
    std::string of = std::is_void_v<T> ? "bytes " : std::string(type_name<Number>()) + " ";
    named(*pointer, (name + " " + of + std::to_string(int64_t(bytes) / int64_t(sizeof(Number)))).c_str(), false);
    return cudaSuccess;
}
template <class T> cudaError_t of_the_host(T** pointer, size_t bytes) {
    *pointer = (T*)malloc(bytes);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}
}    // namespace genmini
#define cudaMalloc(pointer, bytes) ::genmini::allocate(pointer, double(bytes), #pointer)
#define cudaMallocManaged(pointer, bytes, ...) ::genmini::allocate(pointer, double(bytes), #pointer)
#define cudaMallocAsync(pointer, bytes, stream) ::genmini::allocate(pointer, double(bytes), #pointer)
static inline cudaError_t cudaFree(void*) { return cudaSuccess; }    // it lives as long as the process
static inline cudaError_t cudaFreeAsync(void*, cudaStream_t) { return cudaSuccess; }
template <class T> cudaError_t cudaMallocHost(T** pointer, size_t bytes, unsigned = 0) {
    return genmini::of_the_host(pointer, bytes);
}
template <class T> cudaError_t cudaHostAlloc(T** pointer, size_t bytes, unsigned) {
    return genmini::of_the_host(pointer, bytes);
}
static inline cudaError_t cudaFreeHost(void* pointer) { return free(pointer), cudaSuccess; }
static inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    memmove(to, from, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                          cudaStream_t = nullptr) {
    return cudaMemcpy(to, from, bytes, kind);
}
static inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    memset(to, value, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr) {
    return cudaMemset(to, value, bytes);
}
template <class T> cudaError_t cudaMemcpyToSymbol(T& symbol, const void* from, size_t bytes, size_t offset = 0,
                                                  cudaMemcpyKind = cudaMemcpyHostToDevice) {
    if (offset + bytes > sizeof symbol) return cudaErrorInvalidValue;
    memmove((char*)&symbol + offset, from, bytes);
    return cudaSuccess;
}
template <class T> cudaError_t cudaMemcpyFromSymbol(void* to, const T& symbol, size_t bytes, size_t offset = 0,
                                                    cudaMemcpyKind = cudaMemcpyDeviceToHost) {
    if (offset + bytes > sizeof symbol) return cudaErrorInvalidValue;
    memmove(to, (const char*)&symbol + offset, bytes);
    return cudaSuccess;
}

// ---- the device: the emulator has the limits of an H100, and nothing is asynchronous --------------------------------
struct cudaDeviceProp {
    char name[64] = "genmini's emulator, with the limits of an H100";
    int major = 9, minor = 0, multiProcessorCount = 132, warpSize = 32, maxThreadsPerBlock = 1024;
    int maxThreadsPerMultiProcessor = 2048, maxBlocksPerMultiProcessor = 32, regsPerBlock = 65536;
    int maxThreadsDim[3] = {1024, 1024, 64}, maxGridSize[3] = {2147483647, 65535, 65535};
    size_t sharedMemPerBlock = 48 << 10, sharedMemPerBlockOptin = 227 << 10, sharedMemPerMultiprocessor = 228 << 10;
    size_t totalConstMem = 64 << 10, totalGlobalMem = size_t(80) << 30;
    int l2CacheSize = 50 << 20;
};
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* of, int) { return *of = {}, cudaSuccess; }
static inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
static inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
static inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
static inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
static inline cudaError_t cudaDeviceReset() { return cudaSuccess; }
static inline cudaError_t cudaStreamCreate(cudaStream_t* stream) { return *stream = nullptr, cudaSuccess; }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

// Events exist, but no time: it is NaN
struct cudaEvent_t {};
static inline cudaError_t cudaEventCreate(cudaEvent_t*) { return cudaSuccess; }
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = nullptr) { return cudaSuccess; }
static inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
static inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
static inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    static bool told;
    if (!told) printf("cudaEventElapsedTime: nothing is timed here; the time is NaN\n"), told = true;
    return *milliseconds = NAN, cudaSuccess;
}

// ---- launches -------------------------------------------------------------------------------------------------------
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize,
                         cudaFuncAttributePreferredSharedMemoryCarveout };
template <class K> cudaError_t cudaFuncSetAttribute(K* kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    return value >= 0 && genmini::allow((const void*)kernel, size_t(value)) ? cudaSuccess : cudaErrorInvalidValue;
}
