// What the emulator tells the counters (count.cpp): who runs, where lanes meet, and what it does in their place. In the
// build `counted` (-DEMULATOR_COUNT) COUNTED(f(...)) calls counters::f; in all others it is nothing.
#pragma once
#include <cstdint>
#if defined(EMULATOR_COUNT)
#include "words.h"
#include <cstddef>
#include <vector>

#define COUNTED(call) counters::call
// one site for each call in a kernel: the return address tells its line
#define COUNTED_CALL __attribute__((noinline))

namespace counters {

// ---- a launch, its blocks -------------------------------------------------------------------------------------------
void begin(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes);
void end(int code);
const std::vector<uint32_t>& entered();    // in the last launch: sites in the first functions that threads 0 entered
// Memory where `static thread_local` arrays lie, and dynamic shared memory. Hidden memory is neither shared nor global
void block_begins(uint3 index, const void* statics, size_t statics_size, const void* dynamic, size_t dynamic_size);
void hide(const void* start, size_t size);
void constant(const void* start, size_t size);    // hidden in all launches

// ---- who runs -------------------------------------------------------------------------------------------------------
// Defined in count.cpp, which is compiled without counters
void enter(int thread, void* stack, size_t size);    // a thread of the block runs the kernel
void leave();                                        // the emulator runs
struct Quiet {    // while it lives the emulator works for the thread, and its accesses do not count
    int thread;
    uintptr_t stack, stack_end;
    Quiet();
    ~Quiet();
};

// ---- what happens ---------------------------------------------------------------------------------------------------
// All lanes of these warps of the block have arrived here: what they did before can be lined up
void line_up(int first_warp, int warps);
// So many lanes of a warp execute this together: a barrier, a shuffle, a product on the tensor cores
void together(const char* what, uint32_t lanes, const char* file, int line);
void load_matrices(const uint64_t* row, uint32_t lanes, int matrices, const char* file, int line);
bool guesses();    // told once: a kernel of this library has an atomicCAS
void atomic(const char* name, const void* site, const void* at, size_t size);
void load_read_only(const void* site, const void* at, size_t size);    // __ldg
void fence();
void fence_of_block();
void copy_async(const void* site, const void* shared, const void* global, size_t size, int valid);
void copied(int thread, const void* shared, size_t size);    // the thread has waited for this one

// ---- memset, memcpy and memmove: the compiler tells of no access of theirs ------------------------------------------
void* fill(void* at, int byte, size_t size);
void* move(void* to, const void* from, size_t size);

// ---- memory of the host ---------------------------------------------------------------------------------------------
// An array that the host will write itself, or a kernel. It is best filled with 0xff: what functions write that are not
// compiled with counters then shows
void nobody_wrote(const void* at, size_t size);
void gone(const void* at, size_t size);
void no_array(const void* at, size_t size);    // beside one: no kernel may touch it

}    // namespace counters
#else
#define COUNTED(call) ((void)0)
#define COUNTED_CALL
#endif

// ---- what hosts call (count.cpp) ------------------------------------------------------------------------------------
extern "C" const char* gpu_counts();
extern "C" void gpu_array(const void* start, int64_t bytes, const char* name, int written);
