// A GPU on a CPU: what a kernel launch does, in plain C++.
//
// A launch is a grid of blocks; a block is up to 1024 threads with shared memory of their own; 32 neighbouring threads
// are a warp.
//
//   a block                       one OS thread runs it from start to end; several blocks run at once, one per core
//   a CUDA thread                 a fiber (fibers.h): a stack of its own; one fiber of a block runs at a time
//   __syncthreads, __shfl_sync    the fiber records what it waits for and leaves; the last one to arrive wakes the
//                                 others (`meet` in block.h)
//   __shared__                    static thread_local: one copy per OS thread, hence per running block, poisoned when a
//                                 block starts. This holds on Linux; under AddressSanitizer it is a plain static array,
//                                 which keeps its contents
//   a barrier that some threads   ends the launch with an error code; gpu_error(code) lists which thread waits where
//   never reach
//
// Threads run in an order that no kernel may rely on: forward, reverse, or random and drawn anew at each barrier.
// GENMINI_EMULATOR_ORDER=forward|reverse|<seed> or gpu_order(mode, seed) chooses it. On the order depends as well what
// else is undefined: the poison in shared memory, when copy_async reads, to which side intrinsics err.
// GENMINI_EMULATOR_THREADS=1 runs one block at a time.
//
// Files: words.h (dim3, float4, __half, ...), fibers.h (stacks), block.h (a block, its threads, how they meet),
// atomics.h (atomicAdd ...), memory.h (__threadfence, __ldg), intrinsics.h (__expf ...), warp.h (__syncthreads,
// __shfl_sync ...), refusals.h (launches that a card would refuse), and this one: how blocks are run.
// docs/emulator.md shows kernels in a debugger.
#pragma once
#include <random>
#include "atomics.h"
#include "block.h"
#include "intrinsics.h"
#include "memory.h"
#include "refusals.h"

// g++ warns of "hidden" in a namespace without a name
#pragma GCC diagnostic ignored "-Wattributes"

// ---- CUDA's qualifiers ----------------------------------------------------------------------------------------------
// hidden: otherwise shared arrays of the same name in two libraries would be one array
#define __global__ __attribute__((visibility("hidden")))
#define __device__ __attribute__((visibility("hidden")))
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#if defined(__SANITIZE_ADDRESS__)
// AddressSanitizer guards the ends of static arrays, but not of thread_local ones
#define EMULATOR_ONE_BLOCK_AT_A_TIME
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#include "warp.h"

namespace emulator {

// ---- running --------------------------------------------------------------------------------------------------------
// Fills shared memory, whose initial contents are undefined on a GPU, with the poison of the order (block.h).
// (threadIdx and the like lie in thread_local memory as well, and are set afterwards.)
__attribute__((noinline)) static void poison(Range statics, void* dynamic, size_t dynamic_size, int byte) {
    if (statics.start) memset(statics.start, byte, statics.size);
    if (dynamic) memset(dynamic, byte, dynamic_size);
    asm volatile("" ::: "memory");
}

static void start_block(Block& b, Launch& launch, uint64_t i) {
    dim3 grid = launch.grid, size = launch.block;
    if (launch.order == REVERSE) i = launch.blocks - 1 - i;
    b.launch = &launch;
    b.index = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    b.size = b.alive = b.running = int(size.x * size.y * size.z);
    b.at_barrier = b.turns = 0;
    b.opened = b.failed = false;
    for (unsigned n = 0; n < unsigned(b.size); n++) {
        Thread& t = b.thread[n];
        t.index = {n % size.x, n / size.x % size.y, n / size.x / size.y};
        t.number = int(n), t.state = READY, t.stack = nullptr, t.group = t.atomics = 0;
        t.copies.clear();
    }
    for (int w = 0; w < 32; w++) {
        int lanes = std::min(std::max(b.size - 32 * w, 0), 32);
        b.warp[w] = {uint32_t((uint64_t(1) << lanes) - 1), 0};
    }
}

static void enter(Block& b, Thread& t) {    // makes the OS thread this CUDA thread
    block = &b, self = &t;
    threadIdx = t.index, blockIdx = b.index, blockDim = b.launch->block, gridDim = b.launch->grid;
}

EMULATOR_UNSEEN static void fiber() {
    Block& b = *block;
    Thread& t = *self;
    COUNTED(enter(t.number, t.stack, STACK));
    b.launch->kernel(b.launch->arguments);
    COUNTED(leave());
    returned(b, t);
    abandon();
}

static void run_block(Block& b, uint64_t seed) {
    std::minstd_rand random(static_cast<uint32_t>(seed));
    for (int i = 0; i < b.size; i++) b.order[i] = b.launch->order == REVERSE ? b.size - 1 - i : i;
    while (b.alive && !b.failed) {
        if (b.launch->order == RANDOM) std::shuffle(b.order, b.order + b.size, random);
        b.opened = false;
        for (int i = 0; i < b.size && !b.opened && !b.failed; i++) {
            Thread& t = b.thread[b.order[i]];
            if (t.state != READY) continue;
            // a thread has a stack from its first step to its last: without barriers all threads share one
            if (!t.stack) {
                if (b.stacks.empty()) b.stacks.push_back(new_stack());
                t.stack = b.stacks.back(), b.stacks.pop_back();
                if (!t.stack) return fail(b, "no memory for another stack");
                t.stopped_at = new_fiber(t.stack, fiber);
            }
            enter(b, t);
            switch_stack(&b.scheduler, t.stopped_at);
            if (t.state == RETURNED) b.stacks.push_back(t.stack), t.stack = nullptr;
        }
    }
    for (Thread* t = b.thread; t < b.thread + b.size; t++)    // threads that an error stopped
        if (t->stack) forget_frames(t->stack), b.stacks.push_back(t->stack);
}

static const size_t GUARD = 16 << 10;    // bytes without access behind the dynamic shared memory of the build `counted`
#if defined(EMULATOR_COUNT)
// Ends at most 127 bytes before memory without access: who goes on beyond its end faults there
static size_t up_to(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }
static void* new_shared(size_t bytes) {
    size_t room = up_to(bytes, GUARD);
    char* memory = (char*)mmap(nullptr, room + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory + room, GUARD, PROT_NONE);
    return memory + room - up_to(bytes, 128);
}
static void free_shared(void* start, size_t bytes) {
    size_t room = up_to(bytes, GUARD);
    if (start) munmap((char*)start + up_to(bytes, 128) - room, room + GUARD);
}
#else
static void* new_shared(size_t bytes) {    // the exact size: AddressSanitizer guards its end
    void* start;
    return posix_memalign(&start, 128, bytes) ? nullptr : start;
}
static void free_shared(void* start, size_t) { free(start); }
#endif

// One OS thread of a launch: it runs block `i`, then the next that is free, until there is none.
static void work(Launch& launch, Block& b, uint64_t i) {
    b.dynamic_shared = new_shared(launch.shared_bytes);
    block = nullptr;    // a first access creates the thread_local memory of this library
    Range statics = {};
#if !defined(EMULATOR_ONE_BLOCK_AT_A_TIME)
    statics = this_library().thread_local_memory;
#endif
    COUNTED(hide(&b, sizeof b)), COUNTED(hide(&block, sizeof block)), COUNTED(hide(&self, sizeof self));
    COUNTED(hide(&threadIdx, sizeof threadIdx)), COUNTED(hide(&blockIdx, sizeof blockIdx));
    COUNTED(hide(&blockDim, sizeof blockDim)), COUNTED(hide(&gridDim, sizeof gridDim));
    for (; !launch.failed && i < launch.blocks; i = launch.next.fetch_add(1, std::memory_order_relaxed)) {
        start_block(b, launch, i);
        poison(statics, b.dynamic_shared, launch.shared_bytes, poison_of(launch.order));
        COUNTED(block_begins(b.index, statics.start, statics.size, b.dynamic_shared, launch.shared_bytes));
        run_block(b, launch.seed * 7919 + i);
    }
    self = nullptr, block = nullptr;
    free_shared(b.dynamic_shared, launch.shared_bytes);
}

static std::mutex idle_lock;
static Block* idle;    // a list of blocks with their stacks, kept for the next launch
static std::atomic<int> order{-1};    // -1: not yet read from the environment
static std::atomic<uint64_t> seed{0};

static inline int run(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(void*), void* arguments,
                      const std::string& refused) {
    if (int code = pending.exchange(0)) return code;
    if (self) return error_code("launch was called by a kernel");
#if defined(EMULATOR_ONE_BLOCK_AT_A_TIME)
    static std::mutex& one_launch = *new std::mutex;
    std::lock_guard<std::mutex> alone(one_launch);
#endif
    if (!grid.x || !grid.y || !grid.z) return 0;
    uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (!threads || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64)
        return error_code("a block of " + triple(block) + " threads; the limits are (1024,1024,64) and 1024 in all");
    if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        return error_code("a grid of " + triple(grid) + " blocks; the limits are (2147483647,65535,65535)");
    if (shared_bytes > 227 << 10)
        return error_code(std::to_string(shared_bytes) + " bytes of dynamic shared memory; the limit is 232448");
    if (!refused.empty()) return error_code(refused);
    if (order < 0) {
        const char* wanted = getenv("GENMINI_EMULATOR_ORDER");
        std::string text = wanted ? wanted : "forward";
        seed = strtoull(text.c_str(), nullptr, 10);
        order = text == "forward" ? FORWARD : (text == "reverse" ? REVERSE : RANDOM);
    }
    Launch launch;
    launch.grid = grid, launch.block = block, launch.shared_bytes = shared_bytes, launch.kernel = kernel,
    launch.arguments = arguments;
    launch.order = order, launch.seed = seed, launch.blocks = uint64_t(grid.x) * grid.y * grid.z;
    uint64_t workers = 1;
#if !defined(EMULATOR_ONE_BLOCK_AT_A_TIME) && !defined(EMULATOR_COUNT)
    const char* wanted = getenv("GENMINI_EMULATOR_THREADS");
    int cores = wanted ? atoi(wanted) : int(std::thread::hardware_concurrency());
    workers = std::min<uint64_t>(std::max(cores, 1), launch.blocks);
#endif
    std::vector<Block*> blocks;
    {
        std::lock_guard<std::mutex> guard(idle_lock);
        for (; blocks.size() < workers && idle; idle = idle->next) blocks.push_back(idle);
    }
    while (blocks.size() < workers) blocks.push_back(new Block());
    launch.next = workers;
    std::vector<std::thread> others;
    try {
        for (uint64_t i = 1; i < workers; i++) others.emplace_back([&, i] { work(launch, *blocks[i], i); });
    } catch (const std::system_error&) {}    // the system gives no more threads: this one does their work
    work(launch, *blocks[0], 0);
    for (uint64_t i = others.size() + 1; i < workers; i++) work(launch, *blocks[i], i);
    for (std::thread& other : others) other.join();
    std::lock_guard<std::mutex> guard(idle_lock);
    for (Block* b : blocks) b->next = idle, idle = b;
    return launch.failed ? error_code(launch.error) : 0;
}

}    // namespace emulator

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...) in C++. Returns 0, or a code for gpu_error.
template <class... P, class... A> int launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void*,
                                             A... arguments) {
    COUNTED(begin((const void*)kernel, grid, block, shared_bytes));
    auto call = [&] { kernel(static_cast<P>(arguments)...); };
    auto run = [](void* of) { (*static_cast<decltype(call)*>(of))(); };
    emulator::tell((const void*)kernel, block, shared_bytes);
    std::string refused = emulator::refusal<P...>((const void*)kernel, block, static_cast<P>(arguments)...);
    int code = emulator::run(grid, block, shared_bytes, run, &call, refused);
    COUNTED(end(code));
    return code;
}

template <class T> T* dynamic_shared() { return static_cast<T*>(emulator::block->dynamic_shared); }

// Sets the order of the threads from the next launch on: 0 forward, 1 reverse, 2 random from this seed.
extern "C" void gpu_order(int mode, uint64_t seed) { emulator::order = mode, emulator::seed = seed; }

extern "C" const char* gpu_error(int code) {
    int i = code - emulator::FIRST_CODE;
    if (i >= 0 && i < emulator::TEXTS) return emulator::texts[i];    // the texts of the last 64 errors
    if (code == 1) return "invalid argument";
    return code ? "unknown error code" : "no error";
}
