// Launches that are refused before a thread runs: of more threads than the kernel's __launch_bounds__ promise, and with
// pointers to memory that is the host's, which no card can follow.
//
// Each argument that is a pointer is looked at, and each 8 bytes of a struct. Refused are addresses on the stack of the
// thread that launches, and in the variables of this library. Memory from malloc is taken for the card's, as PyTorch's
// CPU tensors are the kernels' memory here; a program that has told `device_memory` of its arrays, as the drivers do,
// may pass pointers to these alone.
#pragma once
#include <map>
#include <type_traits>
#include "block.h"
#if defined(__linux__)
#include <link.h>
#include <pthread.h>
#endif

// ---- __launch_bounds__(threads, ...) --------------------------------------------------------------------------------
// g++ has no attribute that a program could read back, but one that puts n instructions without effect before a
// function, of a byte each, and the address of the first of them into a list: so n can be counted.
#if defined(__x86_64__) && defined(__ELF__) && !defined(__clang__)    // clang lets no template argument give n
#define EMULATOR_KNOWS_BOUNDS
#define EMULATOR_FIRST(n, ...) (n) + 0    // of a bare name g++ 12 makes an internal error
#define __launch_bounds__(...) \
    __attribute__((patchable_function_entry(EMULATOR_FIRST(__VA_ARGS__, 0), EMULATOR_FIRST(__VA_ARGS__, 0))))
extern "C" __attribute__((weak, visibility("hidden"))) const uintptr_t __start___patchable_function_entries[];
extern "C" __attribute__((weak, visibility("hidden"))) const uintptr_t __stop___patchable_function_entries[];
#else
#define __launch_bounds__(...)
#endif

namespace emulator {
static inline unsigned threads_promised(const void* kernel) {    // 1024 if there is no promise
#if defined(EMULATOR_KNOWS_BOUNDS)
    constexpr unsigned char NOP = 0x90;
    for (const uintptr_t* p = __start___patchable_function_entries; p < __stop___patchable_function_entries; p++) {
        uintptr_t n = uintptr_t(kernel) - *p;
        const unsigned char* first = (const unsigned char*)*p;
        if (n && n < 1024 && std::all_of(first, first + n, [](unsigned char byte) { return byte == NOP; })) return n;
    }
#else
    (void)kernel;
#endif
    return 1024;
}

// ---- memory of the host ---------------------------------------------------------------------------------------------
struct Range {
    char* start;
    size_t size;
};
// Where this library lies in memory: the image of the file, and the calling thread's thread_local variables
struct Library {
    Range image, thread_local_memory;
};
#if defined(__linux__)
static int in_this_library(dl_phdr_info* library, size_t, void* found) {
    uintptr_t here = (uintptr_t)&in_this_library, end = 0;
    bool ours = false;
    size_t thread_local_size = 0;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        auto& part = library->dlpi_phdr[i];
        if (part.p_type == PT_LOAD && here - library->dlpi_addr - part.p_vaddr < part.p_memsz) ours = true;
        if (part.p_type == PT_LOAD) end = std::max<uintptr_t>(end, part.p_vaddr + part.p_memsz);
        if (part.p_type == PT_TLS) thread_local_size = part.p_memsz;
    }
    if (!ours) return 0;    // the search goes on
    Library& of = *(Library*)found;
    of.image = {(char*)library->dlpi_addr, end};
    if (library->dlpi_tls_data) of.thread_local_memory = {(char*)library->dlpi_tls_data, thread_local_size};
    return 1;
}
static inline Library this_library() {
    Library library = {};
    dl_iterate_phdr(in_this_library, &library);
    return library;
}
static inline bool on_the_stack(uintptr_t p) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (p < here || p - here > uintptr_t(1) << 30) return false;    // to ask for the exact end costs time
    pthread_attr_t attributes;
    void* start;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attributes)) return false;
    pthread_attr_getstack(&attributes, &start, &size);
    pthread_attr_destroy(&attributes);
    return p < uintptr_t(start) + size;
}
#else
static inline Library this_library() { return {}; }
static inline bool on_the_stack(uintptr_t) { return false; }
#endif
static inline const char* of_the_host(uintptr_t p) {    // null if it may be the card's
    static const Range image = this_library().image;
    if (p - uintptr_t(image.start) < image.size) return "a variable of the host";
    return on_the_stack(p) ? "the host's stack" : nullptr;
}

// The arrays of a program that tells of them: where each begins, and its bytes
static inline std::map<uintptr_t, size_t>& device_memory() {
    static std::map<uintptr_t, size_t> arrays;
    return arrays;
}
static inline bool in_device_memory(uintptr_t p) {    // or just beyond its end
    auto after = device_memory().upper_bound(p);
    return after != device_memory().begin() && (--after, p - after->first <= after->second);
}

// With GENMINI_EMULATOR_LAUNCHES each launch is told to csrc/fitting.py, which knows what else may be refused
static inline void tell(const void* kernel, dim3 block, size_t shared_bytes) {
    static const bool told = getenv("GENMINI_EMULATOR_LAUNCHES");
    if (told)
        fprintf(stderr, "launch of %zx: %u threads, %zu bytes of dynamic shared memory\n",
                size_t((const char*)kernel - this_library().image.start), block.x * block.y * block.z, shared_bytes);
}

// Adds to `text` what is wrong with an argument
template <class T> void look_at(const T& argument, int number, std::string& text) {
    const char* where = nullptr;
    if constexpr (std::is_pointer_v<T>) {
        uintptr_t p = (uintptr_t)argument;
        if (p) where = of_the_host(p);
        if (p && !where && !device_memory().empty() && !in_device_memory(p)) where = "no array of the program's";
    } else if constexpr (std::is_class_v<T> && std::is_trivially_copyable_v<T>) {
        T copy = argument;
#if __has_builtin(__builtin_clear_padding)
        __builtin_clear_padding(&copy);    // what lies there may look like an address
        for (size_t at = 0; at + 8 <= sizeof copy && !where; at += 8) {
            uint64_t word;
            memcpy(&word, (const char*)&copy + at, 8);
            where = of_the_host(uintptr_t(word));
        }
#endif
    }
    if (where) text += (text.empty() ? "" : "; ") + ("argument " + std::to_string(number)) + " points to " + where;
}

static inline std::string too_many(const void* kernel, dim3 block) {
    unsigned promised = threads_promised(kernel);
    if (uint64_t(block.x) * block.y * block.z <= promised) return "";
    return "a block of " + triple(block) + " threads; the kernel's __launch_bounds__ promise at most " +
           std::to_string(promised);
}

// Why a launch is refused, or an empty text
template <class... P> std::string refusal(const void* kernel, dim3 block, const P&... arguments) {
    std::string text = too_many(kernel, block);
    int number = 0;
    (look_at(arguments, number++, text), ...);
    return text;
}
}    // namespace emulator
