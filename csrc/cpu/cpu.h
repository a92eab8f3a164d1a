// What native CPU kernels share: the headers, the threads that take one task after the other, and how they round.
#pragma once
#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include "helpers.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE_X86 1    // the other instruction sets can be compiled here, whatever the compiler's own target is
#include <immintrin.h>
#endif

namespace {

struct Environment {    // round to nearest, keep subnormals: whatever the caller's thread was set to
    std::fenv_t saved;
    Environment() { std::fegetenv(&saved), std::fesetenv(FE_DFL_ENV); }
    ~Environment() { std::fesetenv(&saved); }
};

// work(task, thread) for every task, each by whoever is free
template <class F> void parallel(int64_t tasks, int threads, F work) {
    std::atomic<int64_t> next{0};
    auto run = [&](int t) {
        Environment environment;
        for (int64_t task; (task = next++) < tasks;) work(task, t);
    };
    Helpers::share(int(std::min<int64_t>(threads, tasks)), run);
}

template <class T> T* aligned(void* workspace, int64_t numbers_before) {
    return (T*)((uintptr_t(workspace) + 63) / 64 * 64) + numbers_before;
}

}    // namespace
