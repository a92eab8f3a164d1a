// Memory for the arrays of a call (call.h), and what happens to who leaves it. Around each array lies memory that
// nobody may touch: who does is told with the line, the thread and the array. The report is a file, because the process
// may not live on; genmini/own_cu.py reads it.
#pragma once
#include "../gpu.h"
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

extern const char __ehdr_start __attribute__((visibility("hidden")));    // the linker's: where this library begins

namespace genmini {
struct Piece {
    char *from, *start, *to;    // memory that can be touched; the array within
    size_t bytes;
    std::string name;
};
static std::vector<Piece>& pieces() {
    static std::vector<Piece>& all = *new std::vector<Piece>;
    return all;
}
static const char* report;      // the path of a file
static std::string launched;    // "k.cu:7", where the launch stands that runs
constexpr size_t ALIGNED = 256;    // as cudaMalloc does
constexpr unsigned char UNTOUCHED = 0xff;

inline void tell(const char* kind, const std::string& text) {
    if (FILE* file = fopen(report, "w")) fprintf(file, "%s\n%s", kind, text.c_str()), fclose(file);
}
[[noreturn]] inline void refuse(const std::string& text) {
    fflush(nullptr);
    tell("refused", (launched.empty() ? "" : "the launch in " + launched + ": ") + text);
    _exit(1);
}

inline void* memory(double wanted, const char* name) {
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    if (wanted < 0) refuse(std::string(name) + " has fewer than 0 numbers");
    if (wanted > double(sysconf(_SC_AVPHYS_PAGES)) * double(page))
        refuse(std::string(name) + " of " + std::to_string(wanted / 1e9) + " GB is larger than the free memory here");
    size_t bytes = size_t(wanted), room = (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
    size_t whole = (room + page - 1) / page * page;
    char* map = (char*)mmap(nullptr, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || (whole && mprotect(map + page, whole, PROT_READ | PROT_WRITE)))
        refuse(std::string("there is no memory for ") + name);
    char *from = map + page, *to = from + whole, *start = to - room;
    memset(from, UNTOUCHED, size_t(start - from)), memset(start + bytes, UNTOUCHED, room - bytes);
    pieces().push_back({from, start, to, bytes, name});
    COUNTED(no_array(from, size_t(start - from))), COUNTED(no_array(start + bytes, room - bytes));
    emulator::device_memory()[(uintptr_t)start] = bytes;    // a launch with other pointers is refused
    return start;
}
inline void named(void* start, const char* name, bool written) {
    for (const Piece& piece : pieces()) {
        if (piece.start != start || !piece.bytes) continue;
        if (!written) memset(start, UNTOUCHED, piece.bytes);
        gpu_array(start, int64_t(piece.bytes), name, written);
    }
}

// ---- shared memory: 48 KB of a block, of an H100 227 where the program has allowed it -------------------------------
struct Function {
    size_t code, arrays;    // bytes of its instructions, and of its arrays declared __shared__
};
static std::map<size_t, Function> functions;    // by where they lie in the library
static std::map<size_t, size_t> allowed;        // of a kernel: bytes of dynamic shared memory (cudaFuncSetAttribute)
constexpr size_t USUAL = 48 << 10, MOST = 227 << 10;
inline size_t in_library(const void* kernel) { return size_t((const char*)kernel - &__ehdr_start); }
inline size_t declared(const void* kernel) {
    auto found = functions.find(in_library(kernel));
    return found == functions.end() ? 0 : found->second.arrays;
}
// Of a launch that has run, whose template arguments were deduced: null where the kernel touched no memory
inline const void* entered_kernel() {
#ifdef EMULATOR_COUNT    // as all calls are compiled
    for (uint32_t site : counters::entered()) {
        auto after = functions.lower_bound(site);
        if (after != functions.begin() && (--after, site - after->first <= after->second.code))
            return &__ehdr_start + after->first;
    }
#endif
    return nullptr;
}
inline bool allow(const void* kernel, size_t bytes) {
    if (bytes > MOST || declared(kernel) + bytes > MOST) return false;
    allowed[in_library(kernel)] = bytes;
    return true;
}
inline void check_shared(const void* kernel, size_t bytes) {    // null: it is not known which kernel
    size_t arrays = declared(kernel);
    std::string has = std::to_string(bytes) + " bytes of dynamic shared memory";
    if (arrays) has += " and " + std::to_string(arrays) + " of arrays declared __shared__";
    size_t may = USUAL - std::min(arrays, USUAL);
    if (auto own = allowed.find(in_library(kernel)); own != allowed.end()) may = own->second;
    for (auto& [any, size] : allowed)
        if (!kernel) may = std::max(may, size);
    if (arrays > USUAL)
        refuse(std::to_string(arrays) + " bytes of arrays declared __shared__; nvcc takes at most 49152");
    if (arrays + bytes > MOST) refuse(has + "; a block of an H100 has at most 232448");
    if (bytes > may)
        refuse(has +
               "; before a launch with more than 49152 cudaFuncSetAttribute(kernel, "
               "cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) must allow them");
}

constexpr const char* NOWHERE = "an address in no array of the call";

// "4 bytes behind x, which has 4096": where an address lies beside the nearest array
inline std::string beside(const char* at) {
    if (emulator::block) {
        size_t bytes = emulator::block->launch->shared_bytes;
        const char* end = (const char*)emulator::block->dynamic_shared + bytes;
        if (at >= end && at < end + emulator::GUARD)
            return std::to_string(at - end) + " bytes behind the end of the dynamic shared memory, which has " +
                   std::to_string(bytes) + " bytes: kernel<<<grid, block, bytes>>>";
    }
    for (const Piece& piece : pieces()) {
        const char *end = piece.start + piece.bytes, *low = piece.from - (1 << 12), *high = piece.to + (1 << 12);
        std::string has = " " + piece.name + ", which has " + std::to_string(piece.bytes) + " bytes";
        if (at >= end && at < high) return std::to_string(at - end) + " bytes behind the end of" + has;
        if (at < piece.start && at >= low) return std::to_string(piece.start - at) + " bytes before the start of" + has;
    }
    return at < (const char*)(1 << 16) ? "an address near 0" : NOWHERE;
}

// What was written between an array and the memory that cannot be touched
inline void check_edges() {
    for (const Piece& piece : pieces())
        for (const char* at = piece.from; at < piece.to; at++) {
            if (at == piece.start) at += piece.bytes;
            if (at < piece.to && (unsigned char)*at != UNTOUCHED) refuse("a kernel wrote " + beside(at));
        }
}

inline void crashed(int signal, siginfo_t* info, void* context) {
    COUNTED(leave());
    auto& machine = ((ucontext_t*)context)->uc_mcontext;
#if defined(__x86_64__)
    const char *place = (const char*)machine.gregs[REG_RIP], *stack = (const char*)machine.gregs[REG_RSP];
#elif defined(__aarch64__)
    const char *place = (const char*)machine.pc, *stack = (const char*)machine.sp;
#else
    const char *place = &__ehdr_start, *stack = nullptr;
#endif
    std::string text = std::to_string(place - &__ehdr_start) + "\n";
    if (emulator::self) text += "thread " + emulator::triple(emulator::self->index) + " of block " +
                                emulator::triple(emulator::block->index) + " ";
    if (signal == SIGFPE) text += "divided an integer by zero";
    else if (signal == SIGABRT) text += "called abort, as a failed assert does";
    else {
        const char* at = (const char*)info->si_addr;
        std::string where = beside(at);
        text += "touched " + where;
        if (where == NOWHERE && stack && uintptr_t(at - stack + (1 << 20)) < 2 << 20)
            text += ", near the stack: a recursion without end, or variables too large for it?";
    }
    fflush(stdout);
    tell("crashed", text);
    _exit(1);
}
inline void report_crashes() {
    static char stack[64 << 10];    // that of the thread may be what overflowed
    stack_t own = {};
    own.ss_sp = stack, own.ss_size = sizeof stack;
    sigaltstack(&own, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = crashed, action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGILL}) sigaction(signal, &action, nullptr);
}
inline void finish() {    // after the call, or where it calls exit
    static bool done;
    if (done) return;
    done = true;
    if (emulator::self) {
        COUNTED(leave());
        refuse("thread " + emulator::triple(emulator::self->index) + " of block " +
               emulator::triple(emulator::block->index) + " called exit, which is the host's");
    }
    if (emulator::texts_used) refuse(emulator::texts[0]);    // the first error of a launch
    check_edges();
    tell("counted", gpu_counts());
}
}    // namespace genmini

static void genmini_call();    // the statements of --call

extern "C" void own_call(const char* report, const char* functions) {
    genmini::report = report;
    for (char* end; *functions; functions = end) {    // "where code arrays where code arrays ..."
        size_t where = strtoull(functions, &end, 10), code = strtoull(end, &end, 10);
        genmini::functions[where] = {code, strtoull(end, &end, 10)};
    }
    genmini::report_crashes();
    emulator::device_memory()[0] = 0;    // from here on pointers to no array are the host's
    setvbuf(stdout, nullptr, _IOLBF, 0);
    atexit(genmini::finish);
    genmini_call();
    fflush(nullptr);
    genmini::finish();
}
