// Memory that other blocks see, and memory that nobody writes: the counters (count.h) look whether a kernel keeps to
// both. No kernel of a room uses them yet: "tests only".
#pragma once
#include "block.h"

// What this thread wrote before reaches other blocks before what it writes afterwards
static inline void __threadfence() {    // tests only
    COUNTED(fence());
    std::atomic_thread_fence(std::memory_order_seq_cst);
}
// A load by the way of a cache that sees no writes: nobody may write there during the launch
template <class T> COUNTED_CALL T __ldg(const T* p) {    // tests only
    COUNTED(load_read_only(__builtin_return_address(0), p, sizeof *p));
    COUNTED(Quiet quiet);
    return *p;
}
