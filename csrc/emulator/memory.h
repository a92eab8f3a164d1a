// Memory that other blocks see, memory that nobody writes, and memory that is set or copied as a whole: the counters
// (count.h) look whether a kernel keeps to the first two, and count the third. No kernel of a room uses the first two
// yet: "tests only".
#pragma once
#include "block.h"

// What this thread wrote before reaches other blocks, or the others of its block, before what it writes afterwards
static inline void __threadfence() {    // tests only
    COUNTED(fence());
    std::atomic_thread_fence(std::memory_order_seq_cst);
}
static inline void __threadfence_block() {    // tests only
    COUNTED(fence_of_block());
    std::atomic_thread_fence(std::memory_order_seq_cst);
}
// A load by the way of a cache that sees no writes: nobody may write there during the launch
template <class T> COUNTED_CALL T __ldg(const T* p) {    // tests only
    COUNTED(load_read_only(__builtin_return_address(0), p, sizeof *p));
    COUNTED(Quiet quiet);
    return *p;
}

#if defined(EMULATOR_COUNT)
// A copy of so many bytes is one load and one store, of which the compiler tells
#define EMULATOR_ONE_ACCESS(n) (__builtin_constant_p(n) && ((n) == 1 || (n) == 2 || (n) == 4 || (n) == 8))
#define EMULATOR_WHOLE static inline __attribute__((always_inline)) void*    // the call stands in the kernel
EMULATOR_WHOLE counted_memset(void* at, int byte, size_t n) { return counters::fill(at, byte, n); }
EMULATOR_WHOLE counted_memcpy(void* to, const void* from, size_t n) {
    return EMULATOR_ONE_ACCESS(n) ? __builtin_memcpy(to, from, n) : counters::move(to, from, n);
}
EMULATOR_WHOLE counted_memmove(void* to, const void* from, size_t n) {
    return EMULATOR_ONE_ACCESS(n) ? __builtin_memmove(to, from, n) : counters::move(to, from, n);
}
namespace std {
using ::counted_memcpy;
using ::counted_memmove;
using ::counted_memset;
}    // namespace std
#define memset counted_memset
#define memcpy counted_memcpy
#define memmove counted_memmove
#undef EMULATOR_WHOLE
#endif
