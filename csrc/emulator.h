// A GPU on a CPU: a kernel launch, in plain C++.
//
// A launch is a grid of blocks; a block is up to 1024 threads with their own shared memory; 32 neighbouring threads are a warp.
//
//   here                          how
//   a block                       one OS thread runs it from its start to its end; several blocks run at once, one per core
//   a CUDA thread                 a fiber: a stack of its own, entered and left by `switch_stack`; one fiber of a block runs at a time
//   __syncthreads, __shfl_sync    the fiber says what it waits for and leaves; whoever comes last lets the others go on (`meet`)
//   __shared__                    static thread_local: one copy per OS thread, hence per running block; 0xff bytes (NaN) when a block starts
//   a barrier that not all reach  no fiber can go on: the launch ends with an error code, and gpu_error(code) says who waits where
//
// Threads run in an order that a kernel must not rely on: forward, reverse, or random and drawn anew at each barrier. Choose it by
// GENMINI_EMULATOR_ORDER=forward|reverse|<seed> or gpu_order(mode, seed). GENMINI_EMULATOR_THREADS=1 runs one block at a time.
//
// With -DEMULATOR_OS_THREADS each CUDA thread is an OS thread and blocks follow one another, so that ThreadSanitizer sees who touches what.
// The emulator's own bookkeeping is then hidden from it, and it is told exactly what CUDA promises: __syncthreads and __syncwarp order
// memory, shuffles and votes do not. Hence it reports a missing barrier, and a shuffle that is mistaken for one.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>
#include <sys/mman.h>
#if defined(__linux__)
#include <link.h>
#endif
#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif
#include "emulator_words.h"    // dim3, float4, __half, fmaxf ...: the words of CUDA that need no machine

// ---- the words that shape a program --------------------------------------------------------------------------------------------------------
// "hidden" keeps the shared arrays of two libraries apart: g++ would else merge those of equal names.
#define __global__ __attribute__((visibility("hidden")))
#define __device__ __attribute__((visibility("hidden")))
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#if defined(EMULATOR_OS_THREADS) || defined(__SANITIZE_ADDRESS__)
#define __shared__ static    // one block at a time; AddressSanitizer guards the ends of plain static arrays, but not of thread_local ones
#define EMULATOR_ONE_BLOCK_AT_A_TIME
#else
#define __shared__ static thread_local
#endif
#if defined(EMULATOR_OS_THREADS)
#define EMULATOR_UNSEEN __attribute__((no_sanitize("thread")))
#else
#define EMULATOR_UNSEEN
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#else
static inline void __tsan_acquire(void*) {}
static inline void __tsan_release(void*) {}
#endif
#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(void const volatile*, size_t);
#endif

static thread_local uint3 threadIdx, blockIdx;
static thread_local dim3 blockDim, gridDim;

namespace emulator {

struct Place { const char* file; int line; };    // of the call in the kernel's source; filled by __builtin_FILE() and __builtin_LINE()

struct Copy { char* to; char bytes[16]; int size; int group; };    // a cp.async on its way

using Finish = void (*)(uint32_t lanes, void** operand);    // what the last lane does for all: operand[l] for each l in lanes

struct Thread {
    enum State { READY, WAITING, RETURNED };
    uint3 index;
    int number;                // in the block; lane = number % 32
    int state;
    const char* what;          // it waits for: the name of the operation,
    Place place;               // where it stands,
    uint32_t mask;             // the lanes that must come; 0 is the whole block
    void* operand;             // what it brings and takes away
    Finish finish;
    void* stack;               // its memory, and where in it the fiber stopped
    void* stack_pointer;
    std::vector<Copy> copies;
    int group;                 // of copies, counted by commits
    int phase;                 // barriers passed
};

struct Warp { uint32_t alive, waiting; };    // lanes that have not returned; lanes at a warp operation

struct Launch {
    dim3 grid, block;
    size_t shared_bytes;
    void (*call)(void* body);    // runs the kernel's function, once for each thread
    void* body;
    uint64_t blocks;
    int mode;                  // of the order
    uint64_t seed;
    std::atomic<uint64_t> next;
    std::atomic<bool> failed;
    std::mutex lock;
    std::string text;          // of the first failure
};

struct Block {                 // the block that an OS thread runs; kept for the next one
    Launch* launch;
    uint3 index;
    int size, alive, running, at_barrier;
    bool released;             // a barrier of the whole block has just opened
    bool failed;
    int lock;
    Thread thread[1024];
    Warp warp[32];
    int order[1024];
    char* dynamic;
    void* scheduler;           // where run_block stopped
    std::vector<void*> stacks;
    char fence[1025][2];       // addresses that ThreadSanitizer may hang an ordering on: of the block, then of each thread; in turns
};

static thread_local Thread* self;
static thread_local Block* block;

// ---- errors --------------------------------------------------------------------------------------------------------------------------------
constexpr int FIRST_CODE = 10000, TEXTS = 64;
static std::mutex texts_lock;
static char texts[TEXTS][2048];
static int texts_used;
static std::atomic<int> pending;    // an error outside of any launch; the next launch returns it

static int error_code(const std::string& text) {
    std::lock_guard<std::mutex> guard(texts_lock);
    snprintf(texts[texts_used % TEXTS], sizeof texts[0], "%s", text.c_str());
    return FIRST_CODE + texts_used++ % TEXTS;
}

static std::string triple(uint32_t x, uint32_t y, uint32_t z) {
    return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
}

static void fail(Block& b, const std::string& text) {
    std::lock_guard<std::mutex> guard(b.launch->lock);
    b.failed = true;
    if (b.launch->failed.exchange(true)) return;
    b.launch->text = "block " + triple(b.index.x, b.index.y, b.index.z) + " of grid " + triple(b.launch->grid.x, b.launch->grid.y, b.launch->grid.z) +
                     ", " + std::to_string(b.size) + " threads: " + text;
}

static std::string where(const Thread& t) {
    const char* slash = strrchr(t.place.file, '/');
    char mask[32] = "";
    if (t.mask) snprintf(mask, sizeof mask, " of lanes 0x%08x", t.mask);
    return std::string(t.what) + mask + " in " + (slash ? slash + 1 : t.place.file) + ":" + std::to_string(t.place.line);
}

// "threads 0-31 wait at __syncthreads in x.cu:7; threads 32-63 have returned"
static std::string who_waits(Block& b) {
    std::string text;
    for (int first = 0, last; first < b.size; first = last + 1) {
        auto state = [&](int i) { return b.thread[i].state == Thread::RETURNED ? std::string("returned") : where(b.thread[i]); };
        for (last = first; last + 1 < b.size && state(last + 1) == state(first); last++) {}
        std::string range = first == last ? "thread " + std::to_string(first) : "threads " + std::to_string(first) + "-" + std::to_string(last);
        bool gone = b.thread[first].state == Thread::RETURNED, one = first == last;
        text += (text.empty() ? "" : "; ") + range + (gone ? one ? " has returned" : " have returned" : one ? " waits at " : " wait at ") +
                (gone ? "" : where(b.thread[first]));
    }
    return text;
}

// ---- fibers: one OS thread, many stacks ----------------------------------------------------------------------------------------------------
#if !defined(EMULATOR_OS_THREADS)
constexpr size_t STACK = 256 << 10;    // pages that are never touched cost nothing; the lowest one catches an overflow

static void fiber_main();
#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
// Save what a function call must preserve, remember where the stack ends, go over to the other stack, and restore what lies there.
extern "C" void genmini_switch_stack(void** from, void* to) __attribute__((visibility("hidden")));
asm(R"(
    .text
    .hidden genmini_switch_stack
    .type genmini_switch_stack, @function
genmini_switch_stack:
    .cfi_startproc
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .cfi_endproc
    .size genmini_switch_stack, . - genmini_switch_stack
)");
static void switch_stack(void** from, void* to) { genmini_switch_stack(from, to); }
static void* new_fiber(void* stack) {    // as if it had called switch_stack just before its first instruction
    void** top = (void**)((char*)stack + STACK);
    *--top = nullptr;                 // the return address of fiber_main: a debugger's backtrace ends there
    *--top = (void*)fiber_main;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    return top;
}
#else
static void switch_stack(void** from, void* to) {
    ucontext_t here;
    *from = &here;
    swapcontext(&here, (ucontext_t*)to);
}
static void* new_fiber(void* stack) {
    ucontext_t* fiber = (ucontext_t*)stack;
    getcontext(fiber);
    fiber->uc_stack.ss_sp = fiber + 1;
    fiber->uc_stack.ss_size = STACK - sizeof *fiber;
    makecontext(fiber, fiber_main, 0);
    return fiber;
}
#endif

static void* new_stack(Block& b) {
    if (!b.stacks.empty()) {
        void* stack = b.stacks.back();
        b.stacks.pop_back();
        return stack;
    }
    size_t page = 4096;
    char* memory = (char*)mmap(nullptr, STACK + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory, page, PROT_NONE);
    return memory + page;
}

static void leave() { switch_stack(&self->stack_pointer, block->scheduler); }
static void lock(Block&) {}
static void unlock(Block&) {}
static void wait(Block& b, Thread& t) {    // a barrier of the whole block always goes back to the scheduler, which draws a new order
    if (t.state == Thread::READY && !b.released) return;
    leave();
}
[[noreturn]] static void abandon() {
    for (;;) leave();    // nobody comes back
}
#else
struct Abandon {};
EMULATOR_UNSEEN static void lock(Block& b) { while (__atomic_exchange_n(&b.lock, 1, __ATOMIC_ACQUIRE)) std::this_thread::yield(); }
EMULATOR_UNSEEN static void unlock(Block& b) { __atomic_store_n(&b.lock, 0, __ATOMIC_RELEASE); }
[[noreturn]] static void abandon() { throw Abandon(); }
EMULATOR_UNSEEN static void wait(Block& b, Thread& t) {
    while (__atomic_load_n(&t.state, __ATOMIC_ACQUIRE) == Thread::WAITING) {
        if (__atomic_load_n(&b.failed, __ATOMIC_ACQUIRE)) abandon();
        std::this_thread::yield();
    }
}
#endif

// A fault of this thread that a GPU would answer with a fault of the launch.
[[noreturn]] static void fault(const std::string& text) {
    fail(*block, "thread " + triple(threadIdx.x, threadIdx.y, threadIdx.z) + ": " + text);
    abandon();
}

// ---- meeting: warps and barriers -----------------------------------------------------------------------------------------------------------
EMULATOR_UNSEEN static void go_on(Block& b, Thread& t) {
    __atomic_store_n(&t.state, Thread::READY, __ATOMIC_RELEASE);
    b.running++;
}

// Have all lanes come that t waits for (those that returned do not count)? Then finish the operation and let them go on.
EMULATOR_UNSEEN static void try_warp(Block& b, Thread& t) {
    Warp& w = b.warp[t.number / 32];
    Thread* lane = &b.thread[t.number / 32 * 32];
    uint32_t lanes = t.mask & w.alive;
    if (lanes & ~w.waiting) return;
    void* operand[32];
    for (int l = 0; l < 32; l++)
        if (lanes >> l & 1) {
            if (lane[l].mask != t.mask || (lane[l].what != t.what && strcmp(lane[l].what, t.what))) return;    // it waits for something else
            operand[l] = lane[l].operand;
        }
    w.waiting &= ~lanes;
    t.finish(lanes, operand);
    for (int l = 0; l < 32; l++)
        if (lanes >> l & 1) go_on(b, lane[l]);
}

// Nobody runs: either all stand at one and the same barrier, which opens, or nobody will ever go on.
EMULATOR_UNSEEN static void try_block(Block& b) {
    if (b.running || !b.alive) return;
    if (b.at_barrier < b.alive) return fail(b, "dead-lock, no thread can go on: " + who_waits(b));
    Thread* first = nullptr;
    int count = 0;
    for (int i = 0; i < b.size; i++) {
        Thread& t = b.thread[i];
        if (t.state == Thread::RETURNED) continue;
        if (!first) first = &t;
        if (t.place.line != first->place.line || strcmp(t.place.file, first->place.file) || strcmp(t.what, first->what))
            return fail(b, "threads meet at different barriers: " + who_waits(b));
        count += ((int*)t.operand)[0] != 0;
    }
    int all = b.alive;
    b.at_barrier = 0;
    b.released = true;
    for (int i = 0; i < b.size; i++)
        if (b.thread[i].state == Thread::WAITING) {
            ((int*)b.thread[i].operand)[0] = count, ((int*)b.thread[i].operand)[1] = all;
            go_on(b, b.thread[i]);
        }
}

// The calling thread waits for the lanes of `mask` (0: for all threads of the block) to come to the same operation.
EMULATOR_UNSEEN static void meet(const char* what, uint32_t mask, void* operand, Finish finish, Place place) {
    Block& b = *block;
    Thread& t = *self;
    int lane = t.number % 32;
    if (mask && !(mask >> lane & 1)) fault(std::string(what) + ": the mask does not name the calling lane " + std::to_string(lane));
    lock(b);
    t.what = what, t.mask = mask, t.operand = operand, t.finish = finish, t.place = place;
    t.state = Thread::WAITING;
    b.running--;
    if (mask) b.warp[t.number / 32].waiting |= 1u << lane, try_warp(b, t);
    else b.at_barrier++;
    try_block(b);
    unlock(b);
    wait(b, t);
}

EMULATOR_UNSEEN static void returned(Block& b, Thread& t) {
    Warp& w = b.warp[t.number / 32];
    lock(b);
    t.state = Thread::RETURNED;
    b.running--, b.alive--;
    w.alive &= ~(1u << t.number % 32);
    for (int l = 0; l < 32; l++)
        if (w.waiting >> l & 1) try_warp(b, b.thread[t.number / 32 * 32 + l]);
    try_block(b);
    unlock(b);
}

static bool outside(const char* what) {
    if (self) return false;
    int none = 0;
    int code = error_code(std::string(what) + " was called outside of a kernel launch: call kernels through launch(kernel, grid, block, ...)");
    if (pending.compare_exchange_strong(none, code)) fprintf(stderr, "emulator: %s was called outside of a kernel launch\n", what);
    return true;
}

struct Votes { int count, all; };
static Votes barrier(const char* what, int predicate, Place place) {
    if (outside(what)) return {predicate != 0, 1};
    Votes votes = {predicate, 0};
    char* fence = &block->fence[1024][self->phase++ & 1];
    __tsan_release(fence);
    meet(what, 0, &votes, nullptr, place);
    __tsan_acquire(fence);
    return votes;
}

// A warp operation: every lane brings an Operand, the last one to come calls finish(lanes, operands) for all.
template <class Operand>
void exchange(const char* what, uint32_t mask, Operand& operand, void (*finish)(uint32_t, Operand**), Place place) {
    if (!outside(what)) return meet(what, mask, &operand, (Finish)(void*)finish, place);
    Operand* alone[32] = {&operand};
    finish(1, alone);
}

}    // namespace emulator

#define EMULATOR_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(EMULATOR_PLACE) { emulator::barrier("__syncthreads", 0, {file, line}); }
static inline int __syncthreads_count(int p, EMULATOR_PLACE) { return emulator::barrier("__syncthreads_count", p, {file, line}).count; }
static inline int __syncthreads_or(int p, EMULATOR_PLACE) { return emulator::barrier("__syncthreads_or", p, {file, line}).count > 0; }
static inline int __syncthreads_and(int p, EMULATOR_PLACE) {
    emulator::Votes v = emulator::barrier("__syncthreads_and", p, {file, line});
    return v.count == v.all;
}

namespace emulator {

// Shuffles: a lane brings its value and the lane that it reads from, and takes that lane's value away.
template <class T> T shuffle(const char* what, uint32_t mask, T value, int source, Place place) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 64 bits");
    struct Shuffle { uint64_t value; int source; uint64_t result; } mine = {0, source, 0};
    memcpy(&mine.value, &value, sizeof value);
    exchange<Shuffle>(what, mask, mine, [](uint32_t lanes, Shuffle** of) EMULATOR_UNSEEN {
        for (int l = 0; l < 32; l++)    // a lane that is not here has no value to give: all ones, a NaN
            if (lanes >> l & 1) of[l]->result = lanes >> of[l]->source & 1 ? of[of[l]->source]->value : ~0ull;
    }, place);
    memcpy(&value, &mine.result, sizeof value);
    return value;
}
static inline int lane() { return self ? self->number % 32 : 0; }

// Everything else: each lane learns what all lanes brought, and makes of it what it needs.
struct Gathered { uint64_t mine, of[32]; uint32_t lanes; };
static Gathered gather(const char* what, uint32_t mask, uint64_t value, Place place) {
    Gathered all = {value, {}, 0};
    exchange<Gathered>(what, mask, all, [](uint32_t lanes, Gathered** of) EMULATOR_UNSEEN {
        for (int l = 0; l < 32; l++)
            if (lanes >> l & 1)
                for (int m = 0; m < 32; m++)
                    if (lanes >> m & 1) of[l]->of[m] = of[m]->mine, of[l]->lanes |= 1u << m;
    }, place);
    return all;
}
template <class F> uint32_t lanes_where(const Gathered& all, F f) {
    uint32_t bits = 0;
    for (int l = 0; l < 32; l++)
        if (all.lanes >> l & 1 && f(all.of[l])) bits |= 1u << l;
    return bits;
}
template <class T, class F> T reduce(const Gathered& all, F f) {
    T sum = T(all.mine);
    for (int l = 0; l < 32; l++)
        if (all.lanes >> l & 1 && l != lane()) sum = f(sum, T(all.of[l]));
    return sum;
}

}    // namespace emulator

static inline void __syncwarp(uint32_t mask = 0xffffffffu, EMULATOR_PLACE) {
    char* fence = nullptr;
    if (emulator::self) __tsan_release(fence = &emulator::block->fence[emulator::self->number][emulator::self->phase++ & 1]);
    emulator::Gathered all = emulator::gather("__syncwarp", mask, uint64_t(fence), {file, line});
    for (int l = 0; l < 32; l++)
        if (all.lanes >> l & 1) __tsan_acquire((void*)all.of[l]);
}
template <class T> T __shfl_sync(uint32_t mask, T value, int source, int width = 32, EMULATOR_PLACE) {
    int l = emulator::lane();
    return emulator::shuffle("__shfl_sync", mask, value, l / width * width + (source & (width - 1)), {file, line});
}
template <class T> T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, EMULATOR_PLACE) {
    int l = emulator::lane(), from = l - int(delta);
    return emulator::shuffle("__shfl_up_sync", mask, value, from < l / width * width ? l : from, {file, line});
}
template <class T> T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, EMULATOR_PLACE) {
    int l = emulator::lane(), from = l + int(delta);
    return emulator::shuffle("__shfl_down_sync", mask, value, from >= l / width * width + width ? l : from, {file, line});
}
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, EMULATOR_PLACE) {
    int l = emulator::lane(), from = l ^ bits;
    return emulator::shuffle("__shfl_xor_sync", mask, value, from >= l / width * width + width ? l : from, {file, line});
}
static inline unsigned __ballot_sync(uint32_t mask, int p, EMULATOR_PLACE) {
    return emulator::lanes_where(emulator::gather("__ballot_sync", mask, p != 0, {file, line}), [](uint64_t v) { return v != 0; });
}
static inline int __any_sync(uint32_t mask, int p, EMULATOR_PLACE) {
    return emulator::lanes_where(emulator::gather("__any_sync", mask, p != 0, {file, line}), [](uint64_t v) { return v != 0; }) != 0;
}
static inline int __all_sync(uint32_t mask, int p, EMULATOR_PLACE) {
    return emulator::lanes_where(emulator::gather("__all_sync", mask, p != 0, {file, line}), [](uint64_t v) { return v == 0; }) == 0;
}
template <class T> unsigned __match_any_sync(uint32_t mask, T value, EMULATOR_PLACE) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return emulator::lanes_where(emulator::gather("__match_any_sync", mask, bits, {file, line}), [bits](uint64_t v) { return v == bits; });
}
#define REDUCE(name, T, expression)                                                                                                         \
    static inline T name(uint32_t mask, T value, EMULATOR_PLACE) {                                                                          \
        return emulator::reduce<T>(emulator::gather(#name, mask, uint64_t(value), {file, line}), [](T a, T b) -> T { return expression; }); \
    }
REDUCE(__reduce_add_sync, unsigned, a + b)
REDUCE(__reduce_add_sync, int, int(unsigned(a) + unsigned(b)))
REDUCE(__reduce_min_sync, unsigned, min(a, b))
REDUCE(__reduce_min_sync, int, min(a, b))
REDUCE(__reduce_max_sync, unsigned, max(a, b))
REDUCE(__reduce_max_sync, int, max(a, b))
REDUCE(__reduce_and_sync, unsigned, a& b)
REDUCE(__reduce_or_sync, unsigned, a | b)
REDUCE(__reduce_xor_sync, unsigned, a ^ b)
#undef REDUCE

// ---- launching -----------------------------------------------------------------------------------------------------------------------------
namespace emulator {

// Static shared arrays are thread_local memory of this library: where does the calling thread have it? (threadIdx and the like lie there too.)
struct Range { char* start; size_t size; };
static Range own_thread_local_memory() {
    Range range = {};
#if defined(__linux__) && !defined(EMULATOR_ONE_BLOCK_AT_A_TIME)
    dl_iterate_phdr([](dl_phdr_info* info, size_t, void* found) {
        uintptr_t here = (uintptr_t)&own_thread_local_memory;
        bool ours = false;
        size_t size = 0;
        for (int i = 0; i < info->dlpi_phnum; i++) {
            auto& part = info->dlpi_phdr[i];
            uintptr_t start = info->dlpi_addr + part.p_vaddr;
            if (part.p_type == PT_LOAD && here >= start && here < start + part.p_memsz) ours = true;
            if (part.p_type == PT_TLS) size = part.p_memsz;
        }
        if (ours && info->dlpi_tls_data) *(Range*)found = {(char*)info->dlpi_tls_data, size};
        return int(ours);
    }, &range);
#endif
    return range;
}

// Shared memory starts with whatever was there: here 0xff, which is NaN in every floating type.
__attribute__((noinline)) static void poison(Range statics, char* dynamic, size_t shared_bytes) {
    if (statics.start) memset(statics.start, 0xff, statics.size);
    if (dynamic) memset(dynamic, 0xff, shared_bytes);
    asm volatile("" ::: "memory");
}

static void enter(Block& b, Thread& t) {    // from here on `self` is the running CUDA thread
    block = &b;
    self = &t;
    threadIdx = t.index, blockIdx = b.index, blockDim = b.launch->block, gridDim = b.launch->grid;
}

static void prepare(Block& b, Launch& launch, uint64_t number) {
    dim3 g = launch.grid, size = launch.block;
    b.launch = &launch;
    b.index = {uint32_t(number % g.x), uint32_t(number / g.x % g.y), uint32_t(number / g.x / g.y)};
    b.size = b.alive = b.running = int(size.x * size.y * size.z);
    b.at_barrier = 0;
    b.failed = b.released = false;
    for (int i = 0; i < b.size; i++) {
        Thread& t = b.thread[i];
        t.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
        t.number = i, t.state = Thread::READY, t.stack = t.stack_pointer = nullptr, t.phase = t.group = 0;
        t.copies.clear();
    }
    for (int w = 0; w * 32 < b.size; w++) b.warp[w] = {b.size - w * 32 >= 32 ? ~0u : (1u << (b.size - w * 32)) - 1, 0};
}

#if !defined(EMULATOR_OS_THREADS)
static void fiber_main() {
    Block& b = *block;
    Thread& t = *self;
    b.launch->call(b.launch->body);
    returned(b, t);
    abandon();
}

static void run_block(Block& b, std::minstd_rand& random) {
    for (int i = 0; i < b.size; i++) b.order[i] = b.launch->mode == 1 ? b.size - 1 - i : i;
    while (b.alive && !b.failed) {
        if (b.launch->mode == 2) std::shuffle(b.order, b.order + b.size, random);
        b.released = false;
        for (int i = 0; i < b.size && !b.released && !b.failed; i++) {
            Thread& t = b.thread[b.order[i]];
            if (t.state != Thread::READY) continue;
            if (!t.stack) {
                t.stack = new_stack(b);
                if (!t.stack) return fail(b, "no memory for the stack of a thread");
                t.stack_pointer = new_fiber(t.stack);
            }
            enter(b, t);
            switch_stack(&b.scheduler, t.stack_pointer);
            if (t.state == Thread::RETURNED) b.stacks.push_back(t.stack), t.stack = nullptr;
        }
    }
    for (int i = 0; i < b.size; i++)    // only after a failure
        if (b.thread[i].stack) {
#if defined(__SANITIZE_ADDRESS__)
            __asan_unpoison_memory_region(b.thread[i].stack, STACK);
#endif
            b.stacks.push_back(b.thread[i].stack);
        }
}
#else
static void run_block(Block& b, std::minstd_rand&) {
    std::vector<std::thread> threads;
    for (int i = 0; i < b.size; i++)
        threads.emplace_back([&b, i] {
            enter(b, b.thread[i]);
            try {
                b.launch->call(b.launch->body);
                returned(b, b.thread[i]);
            } catch (Abandon&) {
            }
        });
    for (std::thread& t : threads) t.join();
}
#endif

static std::mutex idle_lock;
static std::vector<Block*>& idle = *new std::vector<Block*>;    // blocks with their stacks, kept from launch to launch

static void work(Launch& launch) {    // what each of the OS threads of a launch does
    Block* b = nullptr;
    {
        std::lock_guard<std::mutex> guard(idle_lock);
        if (!idle.empty()) b = idle.back(), idle.pop_back();
    }
    if (!b) b = new Block();
    void* dynamic = nullptr;
    if (posix_memalign(&dynamic, 128, launch.shared_bytes)) dynamic = nullptr;
    b->dynamic = (char*)dynamic;
    block = b;    // touched, so that the memory of this thread exists
    Range statics = own_thread_local_memory();
    for (uint64_t i; !launch.failed && (i = launch.next++) < launch.blocks;) {
        std::minstd_rand random(uint32_t(launch.seed * 7919 + i));
        prepare(*b, launch, launch.mode == 1 ? launch.blocks - 1 - i : i);
        poison(statics, b->dynamic, launch.shared_bytes);
        run_block(*b, random);
    }
    self = nullptr, block = nullptr;
    free(dynamic);
    std::lock_guard<std::mutex> guard(idle_lock);
    idle.push_back(b);
}

static std::atomic<int> order_mode{-1};
static std::atomic<uint64_t> order_seed;

static unsigned workers() {
#if defined(EMULATOR_ONE_BLOCK_AT_A_TIME)
    return 1;
#else
    const char* wanted = getenv("GENMINI_EMULATOR_THREADS");
    unsigned n = wanted ? unsigned(atoi(wanted)) : std::thread::hardware_concurrency();
    return n ? n : 1;
#endif
}

static int run(dim3 grid, dim3 size, size_t shared_bytes, void (*call)(void*), void* body) {
    if (int code = pending.exchange(0)) return code;
    if (self) return error_code("launch was called from inside a kernel");
    if (!grid.x || !grid.y || !grid.z) return 0;
    if (!size.x || !size.y || !size.z || size.x > 1024 || size.y > 1024 || size.z > 64 || uint64_t(size.x) * size.y * size.z > 1024)
        return error_code("invalid configuration: block " + triple(size.x, size.y, size.z) + ", the limit is (1024,1024,64) and 1024 threads");
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return error_code("invalid configuration: grid " + triple(grid.x, grid.y, grid.z) + ", the limit is (2147483647,65535,65535)");
    if (shared_bytes > 227 << 10)
        return error_code("invalid configuration: " + std::to_string(shared_bytes) + " bytes of dynamic shared memory, the limit is 232448");
    if (order_mode < 0) {
        const char* order = getenv("GENMINI_EMULATOR_ORDER");
        std::string text = order ? order : "forward";
        order_seed = strtoull(text.c_str(), nullptr, 10);
        order_mode = text == "forward" ? 0 : text == "reverse" ? 1 : 2;
    }
    Launch launch;
    launch.grid = grid, launch.block = size, launch.shared_bytes = shared_bytes, launch.call = call, launch.body = body;
    launch.blocks = uint64_t(grid.x) * grid.y * grid.z, launch.mode = order_mode, launch.seed = order_seed, launch.next = 0, launch.failed = false;
    std::vector<std::thread> others;
    uint64_t n = std::min<uint64_t>(workers(), launch.blocks);
    while (others.size() + 1 < n) others.emplace_back([&] { work(launch); });
    work(launch);
    for (std::thread& other : others) other.join();
    return launch.failed ? error_code(launch.text) : 0;
}

}    // namespace emulator

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), which is no C++. Returns 0, or a code for gpu_error.
template <class... P, class... A>
int launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void*, A... arguments) {
    auto thread = [&] { kernel(static_cast<P>(arguments)...); };
    return emulator::run(grid, block, shared_bytes, [](void* body) { (*(decltype(thread)*)body)(); }, &thread);
}

template <class T> T* dynamic_shared() { return (T*)emulator::block->dynamic; }

// The order of the threads from the next launch on: mode 0 forward, 1 reverse, 2 random from this seed.
extern "C" void gpu_order(int mode, uint64_t seed) { emulator::order_mode = mode, emulator::order_seed = seed; }

extern "C" const char* gpu_error(int code) {
    int i = code - emulator::FIRST_CODE;
    if (i >= 0 && i < emulator::TEXTS) return emulator::texts[i];    // the last 64 texts are kept
    return code == 0 ? "no error" : code == 1 ? "invalid argument" : "unknown error code";
}
