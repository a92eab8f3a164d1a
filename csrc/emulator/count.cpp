// Counts what kernels do to memory: the build `counted` of a .cu. docs/counting.md says what each counter means.
//
// The .cu is compiled with -fsanitize=thread -fsanitize-coverage=trace-pc, so that it calls __tsan_read4(p) and the
// like before each access, and __sanitizer_cov_trace_pc() at the start of each basic block. Those functions stand at
// the end of this file, in the place of ThreadSanitizer's: the return address of a call, the `site`, is a line of the
// source. So each lane leaves a trace. Where all lanes of a warp meet, line_up() replays their traces as a warp would
// execute them (count_replay.h); lanes at the same site make one request, and what it costs is added up
// (count_request.h).
//
// One OS thread runs all blocks. gpu_counts() hands out the launches since the last call, as JSON; csrc/count.py turns
// sites into lines.
#include "count.h"
#include "count_hazards.h"
#include "count_json.h"
#include "count_launch.h"
#include "count_replay.h"
#include "count_request.h"
#include <cstdio>
#include <cstring>
#include <map>
#include <pthread.h>
#include <string>
#include <tuple>
#include <vector>

extern const char __ehdr_start __attribute__((visibility("hidden")));    // the linker's: where this library begins

namespace counters {
namespace {

struct Range {
    uintptr_t start, end;
    bool has(uintptr_t p) const { return p >= start && p < end; }
};
Range range(const void* start, size_t size) { return {(uintptr_t)start, (uintptr_t)start + size}; }

struct Running {
    int thread;    // of the block; -1: the emulator's own code
    uintptr_t stack, stack_end;
};

Running running = {-1, 0, 0};
Launch launch;
std::string finished;    // the launches until now, as JSON
Trace trace[1024];       // of each thread of the block
Position position[1024];
std::vector<Range> hidden;
Range statics, dynamic;
std::vector<Array> arrays;    // of the call that runs
uint64_t requests;            // of all launches
int64_t block_number;
Hazards hazards;
bool may_guess;    // a load may be a guess that an atomicCAS proves
bool launching;    // otherwise the host runs
int last;          // the thread that ran before the emulator did

std::vector<Range>& constants() {    // told of before this file's variables exist
    static std::vector<Range> all;
    return all;
}
uint32_t offset(const void* p) { return uint32_t((const char*)p - &__ehdr_start); }

#define HERE __builtin_return_address(0), __builtin_frame_address(0)    // the site of a call, and its frame

// ---- a lane ---------------------------------------------------------------------------------------------------------
Access now(int thread, What what, Site site) { return {site, what, hazards.order.now(thread)}; }

// reads: of an atomic operation, whether its result depends on what was there
void record(What what, const void* site, const void* frame, uintptr_t at, size_t size, bool reads = true) {
    bool shared = false;
    if (what != STEP) {
        if (at >= running.stack && at < running.stack_end) return;
        for (Range r : hidden)
            if (r.has(at)) return;
        shared = dynamic.has(at) || statics.has(at);
        Access access = now(running.thread, what, {offset(site), "", 0});
        reads &= what == LOAD || what == ATOMIC || (what == COPY && !shared);
        if (may_guess && what == LOAD) hazards.load(shared, access, at, size);
        else hazards.access(shared, access, reads, at, size);
    }
    uint16_t depth = uint16_t((running.stack_end - (uintptr_t)frame) / 16);
    trace[running.thread].push_back({at, offset(site), depth, uint16_t(what), uint16_t(shared), uint16_t(size)});
}

// Of a thread: as the widest accesses that divide the range. Of the host: it may be the first to write there
void access_range(What what, const void* site, const void* frame, const void* start, size_t size) {
    uintptr_t at = (uintptr_t)start;
    if (running.thread < 0) {
        if (!launching && what == STORE) hazards.host_writes(at, size);
        return;
    }
    size_t piece = 16;
    while ((at | size) % piece) piece /= 2;
    for (size_t i = 0; i < size; i += piece) record(what, site, frame, at + i, piece);
}

// ---- a warp ---------------------------------------------------------------------------------------------------------
void keep_example(Row& row, const Request& request, int warp) {
    requests++;
    if (!row.examples.wants_next()) return;
    uintptr_t first = request.at[__builtin_ctz(request.active)];    // a multiple of 128: the banks stay
    Example e = example_of(request, arrays, row.examples, (dynamic.has(first) ? dynamic : statics).start / 128 * 128);
    e.time = requests, e.block = block_number, e.warp = warp;
    row.examples.add(e);
}

struct Warp {    // what Replay calls
    int number;    // of the block
    void step(const Event& block, uint32_t lanes) {
        Step& step = launch.steps[block.site];
        step.executed++, step.lanes += uint64_t(__builtin_popcount(lanes));
    }
    void part(const Event& block) { launch.steps[block.site].divergent++; }
    void request(const Event& first, const Request& lanes) {
        uintptr_t sector[MOST_SECTORS];
        Cost cost = lanes.shared ? cost_of_shared(lanes) : cost_of_global(lanes, sector);
        Row& row = launch.rows[{first.site, first.what, first.shared, first.size}];
        row += cost, keep_example(row, lanes, number);
        if (!lanes.shared) launch.caches.request(lanes, block_number, sector, cost.sectors);
    }
};

// ---- JSON -----------------------------------------------------------------------------------------------------------
std::string json(const Launch& l) {
    auto row = [](const Key& k, const Row& c) {
        return number("site", k.site) + "," + text("what", NAMES[k.what]) + "," +
               text("space", k.shared ? "shared" : "global") + "," + number("size", uint64_t(k.size)) + "," +
               costs(c) + "," + kept(c.examples);
    };
    auto step = [](uint32_t site, const Step& s) {
        return number("site", site) + "," + number("executed", s.executed) + "," + number("lanes", s.lanes) + "," +
               number("divergent", s.divergent);
    };
    auto together = [](const auto& key, const Row& c) {
        auto& [what, file, line] = key;
        return text("what", what) + "," + text("file", file) + "," + number("line", uint64_t(line)) + "," +
               costs(c) + "," + kept(c.examples);
    };
    auto hazard = [](const auto& key, const Hazard& h) {
        return text("mistake", MISTAKES[std::get<0>(key)]) + "," +
               text("space", std::get<1>(key) ? "shared" : "global") + "," + access("one", h.one, h.block_of_one) +
               "," + access("other", h.other, h.block_of_other) + "," +
               number("times", h.times);
    };
    const Caches& c = l.caches;
    std::string entered, names;    // and how far behind the start of a sector an array begins
    for (const Array& a : arrays)
        names += (names.empty() ? "{" : ",{") + text("name", a.name) + "," + number("skew", a.start % 32) + "}";
    for (uint32_t site : l.entered) entered += (entered.empty() ? "" : ",") + std::to_string(site);
    return "{" + number("kernel", offset(l.kernel)) + ",\"entered\":[" + entered + "]," + triple("grid", l.grid) +
           "," + triple("block", l.block) + "," + number("dynamic_shared", l.shared_bytes) + "," +
           list("rows", l.rows, row) + "," +
           list("steps", l.steps, step) + "," + list("together", l.together, together) + "," +
           list("hazards", hazards.found.hazards, hazard) + ",\"arrays\":[" + names + "]," +
           number("lts__t_sectors_op_read.sum", c.l2_read) + "," + number("lts__t_sectors_op_write.sum", c.l2_write) +
           "," + number("lts__t_sectors_op_atom.sum", c.l2_atomic) + "," +
           number("dram__bytes_read.sum", 32 * c.dram_read) + "," + number("dram__bytes_write.sum", 32 * c.dram_write) +
           "}";
}

}    // namespace

// ---- what the emulator calls ----------------------------------------------------------------------------------------
void begin(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes) {
    launch = {}, hidden = constants(), hazards.launch_begins(), leave();
    launching = true;
    launch.kernel = kernel, launch.grid = grid, launch.block = block, launch.shared_bytes = shared_bytes;
    block_number = -1;
    pthread_attr_t attributes;    // the arguments of the launch lie on the stack of this OS thread
    void* stack;
    size_t size;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &size);
    pthread_attr_destroy(&attributes);
    hide(stack, size);
}
void end(int code) {
    leave(), launching = false;
    if (!code && block_number >= 0) finished += (finished.empty() ? "" : ",\n") + json(launch);
}
const std::vector<uint32_t>& entered() { return launch.entered; }
void enter(int thread, void* stack, size_t size) {
    running = {thread, (uintptr_t)stack, (uintptr_t)stack + size};
}
void leave() {
    if (running.thread >= 0) last = running.thread, hazards.look_at_loads();
    running.thread = -1;
}
Quiet::Quiet() : thread(running.thread), stack(running.stack), stack_end(running.stack_end) { leave(); }
Quiet::~Quiet() { running = {thread, stack, stack_end}; }
void hide(const void* start, size_t size) { hidden.push_back(range(start, size)); }
void constant(const void* start, size_t size) { constants().push_back(range(start, size)); }
void block_begins(uint3 index, const void* static_memory, size_t static_size, const void* dynamic_memory,
                  size_t dynamic_size) {
    statics = range(static_memory, static_size), dynamic = range(dynamic_memory, dynamic_size);
    for (Trace& of : trace) of.clear();
    for (Position& of : position) of.block.clear();
    block_number++;
    dim3 grid = launch.grid;
    hazards.block_begins(index.x + int64_t(grid.x) * (index.y + int64_t(grid.y) * index.z), statics.start, static_size,
                         dynamic.start, dynamic_size);
}
void line_up(int first_warp, int warps) {
    for (int w = first_warp; w < first_warp + warps; w++) {
        Warp warp{w};
        Replay(warp, trace + 32 * w, position + 32 * w);
    }
}
void together(const char* what, uint32_t lanes, const char* file, int line) {
    Cost& cost = launch.together[{what, file, line}];
    cost.requests++, cost.lanes += uint64_t(__builtin_popcount(lanes));
    if (!strncmp(what, "__syncthreads", 13)) hazards.order.barrier();
    if (!strcmp(what, "__syncwarp")) hazards.order.warp_meets(last / 32, lanes);
}
void load_matrices(const uint64_t* row, uint32_t lanes, int matrices, const char* file, int line) {
    for (int l = 0; l < 8 * matrices; l++)
        if (lanes >> l & 1) hazards.access(true, now(last / 32 * 32 + l, LOAD, {0, file, line}), true, row[l], 16);
    hazards.look_at_loads();
    Cost cost = cost_of_matrices(row, lanes, matrices);
    Row& of_line = launch.together[{"ldmatrix", file, line}];
    of_line += cost;    // requests and lanes: together() has them
    Request request = {LOAD, true, 16, lanes & uint32_t((uint64_t(1) << 8 * matrices) - 1), {}};
    std::copy(row, row + 8 * matrices, request.at);
    keep_example(of_line, request, last / 32);
}
bool guesses() { return may_guess = true; }
void atomic(const char* name, const void* site, const void* at, size_t size) {
    if (running.thread < 0) return;
    if (!strcmp(name, "atomicCAS")) hazards.proved((uintptr_t)at);
    bool shared = dynamic.has((uintptr_t)at) || statics.has((uintptr_t)at);
    hazards.look_at_loads(), hazards.order.atomic(running.thread, (uintptr_t)at, shared);
    record(ATOMIC, site, __builtin_frame_address(0), (uintptr_t)at, size, strcmp(name, "atomicExch") != 0);
}
void load_read_only(const void* site, const void* at, size_t size) {
    if (running.thread < 0) return;
    hazards.load_read_only(now(running.thread, LOAD, {offset(site), "", 0}), (uintptr_t)at, size);
    record(LOAD, site, __builtin_frame_address(0), (uintptr_t)at, size);
}
void fence() {
    if (running.thread >= 0) hazards.look_at_loads(), hazards.order.fence(running.thread, false);
}
void fence_of_block() {
    if (running.thread >= 0) hazards.look_at_loads(), hazards.order.fence(running.thread, true);
}
void* fill(void* at, int byte, size_t size) {
    access_range(STORE, HERE, at, size);
    return memset(at, byte, size);
}
void* move(void* to, const void* from, size_t size) {
    access_range(LOAD, HERE, from, size);
    access_range(STORE, HERE, to, size);
    return memmove(to, from, size);
}
void nobody_wrote(const void* at, size_t size) { hazards.nobody_wrote((uintptr_t)at, size); }
void no_array(const void* at, size_t size) { hazards.no_array((uintptr_t)at, size); }
void gone(const void* at, size_t size) { hazards.written_by_others((uintptr_t)at, size); }
void copy_async(const void* site, const void* shared, const void* global, size_t size, int valid) {
    if (running.thread < 0) return;
    if (valid > 0) record(COPY, site, __builtin_frame_address(0), (uintptr_t)global, size);
    record(COPY, site, __builtin_frame_address(0), (uintptr_t)shared, size);
}
void copied(int thread, const void* shared, size_t size) { hazards.copied(thread, (uintptr_t)shared, size); }

}    // namespace counters

// ---- what the compiled kernels call ---------------------------------------------------------------------------------
#define EXPORTED extern "C" __attribute__((visibility("default")))
#define HIDDEN extern "C" __attribute__((visibility("hidden")))
using namespace counters;

EXPORTED const char* gpu_counts() {    // of the launches since the last call: a JSON list
    static std::string text;
    text = "[" + finished + "]", finished.clear(), hazards.forget();
    return text.c_str();
}

// Of the calls that follow: an array that they are given, by the name of their argument, and whether somebody has
// written it. A null pointer: forget all
EXPORTED void gpu_array(const void* start, int64_t bytes, const char* name, int written) {
    if (start) {
        arrays.push_back({(uintptr_t)start, (uintptr_t)start + bytes, name});
        if (!written) nobody_wrote(start, size_t(bytes));
        return;
    }
    for (const Array& a : arrays) hazards.written_by_others(a.start, a.end - a.start);
    arrays.clear();
}

#define RECORD(name, what, bytes) \
    HIDDEN void name(void* p) { access_range(what, HERE, p, bytes); }
#define READ_WRITE(bytes)                               \
    RECORD(__tsan_read##bytes, LOAD, bytes)             \
    RECORD(__tsan_write##bytes, STORE, bytes)           \
    RECORD(__tsan_unaligned_read##bytes, LOAD, bytes)   \
    RECORD(__tsan_unaligned_write##bytes, STORE, bytes) \
    RECORD(__tsan_volatile_read##bytes, LOAD, bytes)    \
    RECORD(__tsan_volatile_write##bytes, STORE, bytes)
READ_WRITE(1)
READ_WRITE(2)
READ_WRITE(4)
READ_WRITE(8)
READ_WRITE(16)
HIDDEN void __tsan_read_range(void* p, size_t bytes) { access_range(LOAD, HERE, p, bytes); }
HIDDEN void __tsan_write_range(void* p, size_t bytes) { access_range(STORE, HERE, p, bytes); }
HIDDEN void __sanitizer_cov_trace_pc() {
    if (running.thread >= 0) record(STEP, HERE, 0, 0);
}

// Atomic operations of C++: the emulator tells of CUDA's by itself (counters::atomic)
#define ATOMIC_OF(bits, T)                                                                                         \
    HIDDEN T __tsan_atomic##bits##_load(const volatile T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
    HIDDEN void __tsan_atomic##bits##_store(volatile T* p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); } \
    HIDDEN T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                                             \
        return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                        \
    }                                                                                                              \
    HIDDEN T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                                            \
        return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                         \
    }                                                                                                              \
    HIDDEN T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) {                                            \
        return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                         \
    }                                                                                                              \
    HIDDEN bool __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* old, T v, int, int) {              \
        return __atomic_compare_exchange_n(p, old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
    }
ATOMIC_OF(8, uint8_t)
ATOMIC_OF(16, uint16_t)
ATOMIC_OF(32, uint32_t)
ATOMIC_OF(64, uint64_t)

HIDDEN void __tsan_init() {}
HIDDEN void __tsan_func_entry(void*) {
    if (running.thread == 0 && launch.entered.size() < 8) launch.entered.push_back(offset(__builtin_return_address(0)));
}
HIDDEN void __tsan_func_exit() {}
HIDDEN void __tsan_vptr_update(void**, void*) {}
HIDDEN void __tsan_vptr_read(void**) {}
HIDDEN void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
