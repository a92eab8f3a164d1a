// Fibers: many stacks on one OS thread. emulator.h runs each CUDA thread of a block on one.
//
//   new_stack()                       memory for a stack
//   new_fiber(stack, start)           a fiber that calls start() when it is first switched to; start never returns
//   forget_frames(stack)              makes a stack free for the next fiber, although its last fiber never ended
//   switch_stack(&here, there)        stops here and goes on there; returns when another fiber switches back to `here`
#pragma once
#include <atomic>
#include <cstddef>
#include <sys/mman.h>
#if defined(__x86_64__) && defined(__ELF__) && !defined(EMULATOR_UCONTEXT)
#define EMULATOR_SWITCH_BY_HAND
#else
#include <ucontext.h>
#endif

// Functions that work for all threads call no counter, which takes less time
#if defined(EMULATOR_COUNT)
#define EMULATOR_UNSEEN __attribute__((no_sanitize("thread"), no_sanitize_coverage))
#else
#define EMULATOR_UNSEEN
#endif

namespace emulator {

constexpr size_t STACK = 256 << 10;    // pages that are never touched cost nothing

static inline void* new_stack() {
    constexpr size_t page = 16 << 10;    // memory without access below the stack: an overflow faults there
    char* memory =
        (char*)mmap(nullptr, page + STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory, page, PROT_NONE);
    static std::atomic<size_t> stacks{0};
    // shifted against each other: otherwise their tops would share one set of the cache
    return memory + page + stacks++ % 64 * 64;
}

// A fiber that did not end leaves its frames on the stack, and AddressSanitizer still guards them.
#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(void const volatile*, size_t);
static void forget_frames(void* stack) { __asan_unpoison_memory_region(stack, STACK); }
#else
static inline void forget_frames(void*) {}
#endif

#if defined(EMULATOR_SWITCH_BY_HAND)
// A function call preserves six registers and the stack pointer: push the six, store the stack pointer, load the other
// one, pop.
extern "C" void genmini_switch_stack(void** here, void* there) __attribute__((visibility("hidden")));
asm(R"(
    .text
    .hidden genmini_switch_stack
    .type genmini_switch_stack, @function
genmini_switch_stack:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size genmini_switch_stack, . - genmini_switch_stack
)");
EMULATOR_UNSEEN static inline void switch_stack(void** here, void* there) { genmini_switch_stack(here, there); }

// the stack of a fiber that called switch_stack just before its first instruction
static inline void* new_fiber(void* stack, void (*start)()) {
    void** top = (void**)((char*)stack + STACK);
    *--top = nullptr;        // the return address of start: a debugger's backtrace ends here
    *--top = (void*)start;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    return top;
}
#else
// The same with POSIX, some thirty times slower: it also saves the signal mask, by a system call.
EMULATOR_UNSEEN static inline void switch_stack(void** here, void* there) {
    ucontext_t context;
    *here = &context;
    swapcontext(&context, (ucontext_t*)there);
}

static inline void* new_fiber(void* stack, void (*start)()) {
    ucontext_t* context = (ucontext_t*)stack;    // lies at the low end of the stack that it describes
    getcontext(context);
    context->uc_stack.ss_sp = context + 1;
    context->uc_stack.ss_size = STACK - sizeof *context;
    makecontext(context, start, 0);
    return context;
}
#endif

}    // namespace emulator
