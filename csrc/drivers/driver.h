// What the stand-alone programs in this folder share: memory of exact size, numbers, comparisons. Without Python in the
// process, sanitizers see the kernel alone.
//
// A driver includes the room's .cu inside a namespace without a name (AddressSanitizer guards static arrays only if
// they belong to one file), or declares the C functions of its .cpp and is linked with it. It calls every entry point
// on small shapes, and compares with a plain loop in double. csrc/sanitize.py compiles and runs them.
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>
#include "../gpu.h"

// Memory of exactly n numbers, whose bytes are 0xff (NaN) at first, so that a number that is never written shows
template <class T> struct Array {
    T* p = nullptr;
    int64_t n;
    explicit Array(int64_t n) : n(n) {
#if defined(__CUDACC__)
        if (cudaMallocManaged((void**)&p, n ? n * sizeof(T) : 1) != cudaSuccess)
            fprintf(stderr, "no GPU memory\n"), exit(2);
#else
        p = (T*)malloc(n * sizeof(T));
        emulator::device_memory()[uintptr_t(p)] = n * sizeof(T);    // a launch may be given no other
#endif
        memset((void*)p, 0xff, n * sizeof(T));
#if !defined(__CUDACC__)
        COUNTED(nobody_wrote(p, n * sizeof(T)));
#endif
    }
    Array(const Array&) = delete;
    ~Array() {
#if defined(__CUDACC__)
        cudaFree(p);
#else
        emulator::device_memory().erase(uintptr_t(p));
        COUNTED(gone(p, n * sizeof(T)));
        free(p);
#endif
    }
    T& operator[](int64_t i) { return p[i]; }
};

inline uint64_t& random_state() {
    static uint64_t state = 1;
    return state;
}
inline double uniform() {    // in [-1, 1), always the same sequence
    random_state() = random_state() * 6364136223846793005u + 1442695040888963407u;
    return double(int64_t(random_state()) >> 11) * 0x1p-52;
}
template <class T> void fill(Array<T>& a, double scale = 1) {
    for (int64_t i = 0; i < a.n; i++) a[i] = from_real<T>(scale * uniform());
}

// A hash of the bits of every number that `expect` was given: where it is the same, the kernels gave the same bits
inline uint64_t& checksum() {
    static uint64_t sum = 1;
    return sum;
}
inline void add_to_checksum(double v) {
    uint64_t bits = 0;    // of every NaN: processors give it different signs
    if (v == v) memcpy(&bits, &v, sizeof v);
    checksum() = ((checksum() << 7 | checksum() >> 57) ^ bits) * 6364136223846793005u;
}

[[noreturn]] inline void stop(int status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    if (!status) printf(", checksum %016llx", (unsigned long long)checksum());
    printf("\n");
#if defined(EMULATOR_COUNT)
    printf("%s\n", gpu_counts());    // csrc/sanitize.py reads the hazards in it
#endif
    fflush(stdout);
    exit(status);
}

inline void run(const std::string& what, int code) {    // a launch must succeed
#if defined(__CUDACC__)
    if (!code) code = int(cudaDeviceSynchronize());
#endif
    if (code) stop(2, "%s: %s", what.c_str(), gpu_error(code));
}

inline void expect(const std::string& what, int64_t i, double got, double want, double tolerance) {
    add_to_checksum(got);
    if (got == want || (got != got && want != want) || fabs(got - want) <= tolerance) return;
    stop(1, "%s: wrong at %lld: %.17g instead of %.17g +- %.3g", what.c_str(), (long long)i, got, want, tolerance);
}

// Calls f(zero of the type, its code, its name, its relative precision) for the four number types
template <class F> void each_dtype(F f) {
    f(float(), 0, std::string("float32"), 0x1p-23);
    f(float16(), 1, std::string("float16"), 0x1p-10);
    f(bfloat16(), 2, std::string("bfloat16"), 0x1p-7);
    f(double(), 3, std::string("float64"), 0x1p-50);
}
