// One block of a launch: its threads, what they wait for, and how they meet. emulator.h runs the blocks.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>
#include "count.h"
#include "fibers.h"
#include "words.h"

static thread_local uint3 threadIdx, blockIdx;
static thread_local dim3 blockDim, gridDim;

namespace emulator {

// ---- threads, warps, launches, blocks -------------------------------------------------------------------------------
struct Place {    // of a call in the kernel's source
    const char* file;
    int line;
};

// the work of a warp operation, done by the last lane for all; operand[l] belongs to lane l
using Finish = void (*)(uint32_t lanes, void** operand);

struct Copy {    // a cp.async that is under way
    void* to;
    const void* from;    // null once it was read
    char bytes[16];
    int size, valid, group;    // size and valid in bytes; what is not valid is zero
    void read() {
        if (from) memcpy(bytes, from, size_t(valid));
        from = nullptr;
    }
};

enum State {    // of a thread
    READY,
    WAITING,
    RETURNED
};

struct Thread {
    uint3 index;
    int number, state;           // number in the block: warp 32 w + lane
    const char* what;            // WAITING for: the name of the operation,
    Place place;                 //   where it stands,
    uint32_t mask;               //   the lanes that must come (0: all threads of the block),
    void* operand;               //   this lane's input and output,
    Finish finish;               //   and the work on all of them
    void *stack, *stopped_at;    // the fiber
    std::vector<Copy> copies;
    int group, atomics;          // counts of copy_async_commit, atomic operations
};

enum Order {    // of the threads
    FORWARD,
    REVERSE,
    RANDOM
};
// What memory holds that nobody wrote, in each byte: NaN in every floating type or, for a maximum that drops NaN, huge
// numbers: 61280 as a half and 1.3e36 as a float, and below zero -65376 and -2.6e36
static inline int poison_of(int order) {
    if (order == FORWARD) return 0xff;
    return order == REVERSE ? 0x7b : 0xfb;
}

struct Warp {
    uint32_t alive, waiting;    // lanes that have not returned; lanes that wait at a warp operation
};

struct Launch {
    dim3 grid, block;
    size_t shared_bytes;
    void (*kernel)(void* arguments);
    void* arguments;
    int order;
    uint64_t seed, blocks;
    std::atomic<uint64_t> next{0};    // the block to run next
    std::atomic<bool> failed{false};
    std::mutex lock;
    std::string error;                // the first one
};

struct Block {
    Launch* launch;
    uint3 index;
    int size, alive, running, at_barrier;    // numbers of threads
    // calls of spin() since a thread last came to a barrier, a warp operation or its end
    int turns;
    bool opened, failed;                     // a barrier of the block has just opened; an error was recorded
    void *scheduler, *dynamic_shared;
    Thread thread[1024];
    Warp warp[32];
    int order[1024];
    std::vector<void*> stacks;
    Block* next;    // in the list of idle blocks
};

static thread_local Block* block;
static thread_local Thread* self;    // null outside of kernels

// ---- errors ---------------------------------------------------------------------------------------------------------
constexpr int FIRST_CODE = 10000, TEXTS = 64;
static char texts[TEXTS][2048];
// pending: an error outside of any launch, returned by the next one
static std::atomic<int> texts_used{0}, pending{0};

static int error_code(const std::string& text) {
    int i = texts_used++ % TEXTS;
    snprintf(texts[i], sizeof texts[i], "%s", text.c_str());
    return FIRST_CODE + i;
}

static bool differ(const char* a, const char* b) { return a != b && strcmp(a, b); }
static bool one_place(Place a, Place b) { return a.line == b.line && !differ(a.file, b.file); }

static std::string triple(dim3 v) {
    return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}
static std::string triple(uint3 v) { return triple(dim3(v.x, v.y, v.z)); }

static void fail(Block& b, const std::string& text) {
    std::lock_guard<std::mutex> guard(b.launch->lock);
    b.failed = true;
    if (!b.launch->failed.exchange(true))
        b.launch->error = "block " + triple(b.index) + " of grid " + triple(b.launch->grid) + ": " + text;
}

static std::string doing(const Thread& t) {
    if (t.state == RETURNED) return " returned";
    if (t.state == READY) return " run";
    const char* slash = strrchr(t.place.file, '/');
    char mask[32] = "";
    if (t.mask) snprintf(mask, sizeof mask, "(0x%08x)", t.mask);
    return std::string(" at ") + t.what + mask + " in " + (slash ? slash + 1 : t.place.file) + ":" +
           std::to_string(t.place.line);
}

// "threads 0-15,40 at __syncthreads in x.cu:7; threads 16-39 returned"
static std::string who_waits(const Block& b, int from = 0, int to = 1024) {
    std::vector<std::string> what, ranges;
    to = std::min(to, b.size);
    for (int first = from, last; first < to; first = last + 1) {
        std::string here = doing(b.thread[first]);
        for (last = first; last + 1 < to && doing(b.thread[last + 1]) == here; last++) {}
        size_t i = std::find(what.begin(), what.end(), here) - what.begin();
        if (i == what.size()) what.push_back(here), ranges.push_back("");
        std::string range = std::to_string(first) + (last > first ? "-" + std::to_string(last) : "");
        if (ranges[i].size() < 40) ranges[i] += (ranges[i].empty() ? "threads " : ",") + range;
        else if (ranges[i].back() != '.') ranges[i] += ",...";
    }
    std::string text;
    for (size_t i = 0; i < what.size(); i++) text += (i ? "; " : "") + ranges[i] + what[i];
    return text;
}

// ---- how a CUDA thread waits, and how it ends after an error --------------------------------------------------------
EMULATOR_UNSEEN static void leave() { switch_stack(&self->stopped_at, block->scheduler); }
static void wait(Block& b, Thread& t) {
    // the last thread at a barrier leaves too, because a new order is drawn
    if (t.state == WAITING || b.opened || b.failed) leave();
}
[[noreturn]] EMULATOR_UNSEEN static void abandon() {
    for (;;) leave();    // the thread never runs again
}

[[noreturn]] static void fault(const std::string& text) {    // ends the launch, as a fault does on a GPU
    fail(*block, "thread " + triple(threadIdx) + ": " + text);
    abandon();
}

static bool outside(const char* what) {    // of any launch: a kernel was called as a plain function
    if (self) return false;
    int none = 0;
    pending.compare_exchange_strong(
        none, error_code(std::string(what) + " outside of a launch: call kernels through launch(kernel, ...)"));
    fprintf(stderr, "emulator: %s was called outside of a launch\n", what);
    return true;
}

// ---- meeting --------------------------------------------------------------------------------------------------------
EMULATOR_UNSEEN static void go_on(Block& b, Thread& t) {
    b.running++;
    t.state = READY;
}

// Finishes the operation of t for these lanes of its warp, and wakes them
EMULATOR_UNSEEN static void finish(Block& b, Thread& t, uint32_t lanes) {
    Warp& warp = b.warp[t.number / 32];
    Thread* lane = &b.thread[t.number / 32 * 32];
    void* operand[32];
    for (int l = 0; l < 32; l++)
        if (lanes >> l & 1) operand[l] = lane[l].operand;
    warp.waiting &= ~lanes;
    if (lanes == warp.alive) COUNTED(line_up(t.number / 32, 1));
    COUNTED(together(t.what, lanes, t.place.file, t.place.line));
    t.finish(lanes, operand);
    for (int l = 0; l < 32; l++)
        if (lanes >> l & 1) go_on(b, lane[l]);
}

// If all lanes that t waits for have arrived (those that returned do not count), finishes their operation and wakes
// them.
EMULATOR_UNSEEN static void try_warp(Block& b, Thread& t) {
    Warp& warp = b.warp[t.number / 32];
    Thread* lane = &b.thread[t.number / 32 * 32];
    uint32_t lanes = t.mask & warp.alive;
    if (lanes & ~warp.waiting) return;
    bool apart = false;
    for (int l = 0; l < 32; l++)
        if (lanes >> l & 1) {
            if (lane[l].mask != t.mask || differ(lane[l].what, t.what)) return;    // it waits for another operation
            apart |= !one_place(lane[l].place, t.place);
        }
    if (apart && !differ(t.what, "__activemask")) return;    // see release_active
    // of all warp operations __syncwarp alone may stand in several places (PTX: bar.warp.sync)
    if (apart && differ(t.what, "__syncwarp"))
        return fail(b, "lanes of one warp operation stand at different places: " +
                           who_waits(b, t.number / 32 * 32, t.number / 32 * 32 + 32));
    finish(b, t, lanes);
}

// __activemask waits for no lane: when no thread can run, those of a warp that ask at one place go on together
EMULATOR_UNSEEN static bool release_active(Block& b) {
    bool any = false;
    for (Thread* t = b.thread; t < b.thread + b.size; t++) {
        if (t->state != WAITING || differ(t->what, "__activemask")) continue;
        uint32_t lanes = 0;
        for (Thread* other = &b.thread[t->number / 32 * 32]; other < b.thread + b.size; other++)
            if (other->number / 32 == t->number / 32 && other->state == WAITING && !differ(other->what, t->what) &&
                one_place(other->place, t->place))
                lanes |= 1u << other->number % 32;
        finish(b, *t, lanes), any = true;
    }
    return any;
}

// The result of a barrier: how many threads arrived with a predicate that holds, and how many arrived
struct Votes {
    int yes, all;
};

// Called when no thread runs: if all wait at one barrier it opens; else no thread can ever go on, which is an error.
EMULATOR_UNSEEN static void try_block(Block& b) {
    if (b.running || !b.alive || release_active(b)) return;
    if (b.at_barrier < b.alive) return fail(b, "dead-lock: " + who_waits(b));
    Votes votes = {0, b.alive};
    Thread* first = nullptr;
    for (Thread* t = b.thread; t < b.thread + b.size; t++) {
        if (t->state == RETURNED) continue;
        if (!first) first = t;
        if (!one_place(t->place, first->place) || differ(t->what, first->what))
            return fail(b, "threads meet at different barriers: " + who_waits(b));
        votes.yes += ((Votes*)t->operand)->yes;
    }
    COUNTED(line_up(0, (b.size + 31) / 32));
    for (Warp* w = b.warp; w < b.warp + 32; w++)
        if (w->alive) COUNTED(together(first->what, w->alive, first->place.file, first->place.line));
    b.at_barrier = 0;
    b.opened = true;
    for (Thread* t = b.thread; t < b.thread + b.size; t++)
        if (t->state == WAITING) {
            *(Votes*)t->operand = votes;
            go_on(b, *t);
        }
}

// Waits until the lanes of `mask` (0: all threads of the block) have arrived at the same operation
EMULATOR_UNSEEN static void meet(const char* what, uint32_t mask, void* operand, Finish finish, Place place) {
    COUNTED(Quiet quiet);
    Block& b = *block;
    Thread& t = *self;
    uint32_t bit = 1u << t.number % 32;
    if (finish && !(mask & bit)) fault(std::string(what) + ": the mask does not name the lane that calls");
    t.what = what, t.mask = mask, t.operand = operand, t.finish = finish, t.place = place, t.state = WAITING;
    b.running--, b.turns = 0;
    if (finish) b.warp[t.number / 32].waiting |= bit, try_warp(b, t);
    else b.at_barrier++;
    try_block(b);
    wait(b, t);
}

EMULATOR_UNSEEN static void returned(Block& b, Thread& t) {    // other threads may have waited for this
    Warp& warp = b.warp[t.number / 32];
    t.state = RETURNED;
    b.running--, b.alive--, b.turns = 0;
    warp.alive &= ~(1u << t.number % 32);
    if (!warp.alive) COUNTED(line_up(t.number / 32, 1));
    for (int l = 0; l < 32; l++)
        if (warp.waiting >> l & 1) try_warp(b, b.thread[t.number / 32 * 32 + l]);
    try_block(b);
}

// A thread that repeats atomic operations may be waiting for another thread: this lets the others run, a limited number
// of times.
EMULATOR_UNSEEN static void spin() {
    if (!self || ++self->atomics % 1024) return;
    COUNTED(Quiet quiet);
    bool hopeless = ++block->turns > (1 << 14) + 512 * block->running;
    if (hopeless) fault("atomic operations without end: " + who_waits(*block));
    leave();
}

}    // namespace emulator
