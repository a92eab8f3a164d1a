// What `genmini count my.cu --call "..."` puts before the text of my.cu: arrays, launches by <<<>>>, and reports of
// what goes wrong. csrc/unit.py writes the rest of the translation unit:
//
//   Array<float> x(N), y(N, M)                 0, 1, 2, ... in memory as cudaMalloc gives it; a T* where one is wanted
//   x.fill([](int64_t i) { return ...; })      other numbers
//   y.print(), y.print(20)                     its first numbers
//   configured(kernel, grid, block, ...)(...)  what kernel<<<grid, block, ...>>>(...) is rewritten to
//
// Under nvcc the same unit is compiled for its kernels alone, and is not run.
#pragma once
#include "../gpu.h"
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace genmini {
template <class T> constexpr const char* type_name() {
    if (std::is_same_v<T, float16>) return "float16";
    if (std::is_same_v<T, bfloat16>) return "bfloat16";
    if (std::is_same_v<T, bool>) return "bool";
    if (std::is_floating_point_v<T>) return sizeof(T) == 4 ? "float32" : "float64";
    constexpr const char* integers[2][4] = {{"uint8", "uint16", "uint32", "uint64"},
                                            {"int8", "int16", "int32", "int64"}};
    if (std::is_integral_v<T>) return integers[std::is_signed_v<T>][sizeof(T) == 8 ? 3 : sizeof(T) / 2];
    return "values";
}
template <class T, class V> T number(V v) {
    if constexpr (std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>) return from_real<T>(float(v));
    else return T(v);
}
template <class T> constexpr bool is_number = std::is_arithmetic_v<T> || std::is_same_v<T, float16> ||
                                              std::is_same_v<T, bfloat16>;
}    // namespace genmini

#if defined(__CUDACC__)
namespace genmini {
inline void* memory(size_t, const char*) { return nullptr; }
inline void named(void*, const char*, bool) {}
}    // namespace genmini
#else
#include "arrays.h"
#include "cuda_runtime.h"
#endif

template <class T> struct Array {
    T* p = nullptr;
    int64_t rows, columns;    // columns: 0 of an array with one index
    const char* name;         // that of the variable: genmini/own_cu.py adds it

    explicit Array(const char* name, int64_t rows, int64_t columns = 0) : rows(rows), columns(columns), name(name) {
        std::string shape = std::to_string(rows) + (columns ? " " + std::to_string(columns) : "");
        double bytes = double(sizeof(T)) * double(rows) * double(columns ? columns : 1);
        p = (T*)genmini::memory(rows < 0 || columns < 0 ? -1.0 : bytes, name);
        genmini::named(p, (std::string(name) + " " + genmini::type_name<T>() + " " + shape).c_str(), true);
        if constexpr (genmini::is_number<T>) fill([](int64_t i) { return i; });
        else if (p) memset((void*)p, 0, size_t(bytes));
    }
    explicit Array(int64_t rows, int64_t columns = 0) : Array("array", rows, columns) {}

    int64_t size() const { return rows * (columns ? columns : 1); }
    operator T*() const { return p; }
    template <class F> void fill(F value) {
        for (int64_t i = 0; p && i < size(); i++) p[i] = genmini::number<T>(value(i));
    }
    void print(int64_t most = 8) const {
        printf("%s =", name);
        for (int64_t i = 0; p && i < std::min(most, size()); i++) printf(" %.9g", to_double(p[i]));
        printf(most < size() ? " ...\n" : "\n");
    }
};

#if !defined(__CUDACC__)
#undef __global__    // of each kernel a function, which has its name
#define __global__ __attribute__((visibility("hidden"), noinline))
// kernel<<<...>>> whose template arguments are deduced, or which is overloaded: a call finds the one that is meant
#define GENMINI_CALL(...) [](auto... arguments) { __VA_ARGS__(arguments...); }

namespace genmini {
struct Constant {    // a __constant__ variable: no global memory
    template <class T> explicit Constant(const T& of) { COUNTED(constant(&of, sizeof of)), (void)of; }
};
// extern __shared__ T name[]; outside of a function: the memory of the block that runs
template <class T> struct Dynamic {
    operator T*() const { return dynamic_shared<T>(); }
    template <class U> explicit operator U*() const { return (U*)dynamic_shared<T>(); }
    template <class I> T& operator[](I i) const { return dynamic_shared<T>()[i]; }
    template <class I> T* operator+(I i) const { return dynamic_shared<T>() + i; }
};
template <class... P> struct Configured {
    void (*kernel)(P...);
    dim3 grid, block;
    size_t shared_bytes;
    void* stream;
    std::string place;    // of the launch
    bool deduced;         // then `kernel` calls the kernel
    template <class... A> void operator()(A... arguments) const {
        static_assert(sizeof...(A) == sizeof...(P), "this kernel takes another number of arguments");
        launched = place;
        if (!grid.x || !grid.y || !grid.z) refuse("a launch of 0 blocks, which CUDA calls an error");
        check_shared(deduced ? nullptr : (const void*)kernel, shared_bytes);
        if constexpr (sizeof...(A) == sizeof...(P))
            if (int code = launch(kernel, grid, block, shared_bytes, stream, arguments...)) refuse(gpu_error(code));
        if (const void* meant = deduced ? entered_kernel() : nullptr) {    // known only now
            if (std::string text = emulator::too_many(meant, block); !text.empty()) refuse(text);
            check_shared(meant, shared_bytes);
        }
        check_edges();
        launched.clear();
    }
};
template <class... P> Configured<P...> configured(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes = 0,
                                                  void* stream = nullptr, const char* file = __builtin_FILE(),
                                                  int line = __builtin_LINE(), bool deduced = false) {
    return {kernel, grid, block, shared_bytes, stream, std::string(file) + ":" + std::to_string(line), deduced};
}
template <class T> T* given(const Array<T>& array) { return array; }
template <class T> T given(T argument) { return argument; }
template <class F> auto deduced(F call, dim3 grid, dim3 block, size_t shared_bytes = 0, void* stream = nullptr,
                                const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    auto launch = [=](auto... a) {
        auto kernel = static_cast<void (*)(decltype(a)...)>(call);
        configured(kernel, grid, block, shared_bytes, stream, file, line, true)(a...);
    };
    return [=](auto... arguments) { launch(given(arguments)...); };
}
}    // namespace genmini
#endif
