// Barriers, shuffles, votes, matches and reductions between the threads of a block and the lanes of a warp, built on
// `meet` of block.h. Each function has one hidden argument, the place of its call, for the report of a dead-lock. What
// no kernel uses yet is marked "tests only": tests/kernels/test_emulator.cu alone runs it.
#pragma once
#include "block.h"

#define EMULATOR_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---- barriers of the block ------------------------------------------------------------------------------------------
namespace emulator {
COUNTED_CALL static Votes barrier(const char* what, int predicate, Place place) {
    Votes votes = {predicate != 0, 1};
    if (outside(what)) return votes;
    meet(what, 0, &votes, nullptr, place);
    return votes;
}
}    // namespace emulator

static inline void __syncthreads(EMULATOR_PLACE) { emulator::barrier("__syncthreads", 0, {file, line}); }
static inline int __syncthreads_count(int p, EMULATOR_PLACE) {    // tests only
    return emulator::barrier("__syncthreads_count", p, {file, line}).yes;
}
static inline int __syncthreads_or(int p, EMULATOR_PLACE) {    // tests only
    return emulator::barrier("__syncthreads_or", p, {file, line}).yes > 0;
}
static inline int __syncthreads_and(int p, EMULATOR_PLACE) {    // tests only
    emulator::Votes votes = emulator::barrier("__syncthreads_and", p, {file, line});
    return votes.yes == votes.all;
}

// ---- two ways to exchange within a warp -----------------------------------------------------------------------------
namespace emulator {

// Every lane brings an Operand; the last one to arrive calls finish(lanes, operands) for all.
template <class Operand>
void exchange(const char* what, uint32_t mask, Operand& operand, void (*finish)(uint32_t lanes, void** operand),
              Place place) {
    if (!outside(what)) meet(what, mask, &operand, finish, place);
}

static inline int lane() { return self ? self->number % 32 : 0; }

// Shuffles: a lane brings a value and the number of a lane, and gets the value of that lane.
struct Shuffle {
    uint64_t value, result;
    int source;
};
EMULATOR_UNSEEN static inline void shuffle_all(uint32_t lanes, void** operand) {
    Shuffle** of = (Shuffle**)operand;
    for (int l = 0; l < 32; l++)    // a lane that is not here gives all ones: NaN
        if (lanes >> l & 1) of[l]->result = lanes >> of[l]->source & 1 ? of[of[l]->source]->value : ~uint64_t(0);
}
template <class T> T shuffle(const char* what, uint32_t mask, T value, int source, Place place) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 64 bits");
    Shuffle mine = {0, 0, source};
    memcpy(&mine.value, &value, sizeof value);
    exchange(what, mask, mine, shuffle_all, place);
    memcpy(&value, &mine.result, sizeof value);
    return value;
}

// All other operations: each lane gets what all lanes brought, and computes its result from that.
struct Gathered {
    uint64_t mine, of[32];
    uint32_t lanes;
};
EMULATOR_UNSEEN static inline void gather_all(uint32_t lanes, void** operand) {
    Gathered** of = (Gathered**)operand;
    for (int l = 0; l < 32; l++) {
        if (!(lanes >> l & 1)) continue;
        of[l]->lanes = lanes;
        for (int m = 0; m < 32; m++)
            if (lanes >> m & 1) of[l]->of[m] = of[m]->mine;
    }
}
static inline Gathered gather(const char* what, uint32_t mask, uint64_t value, Place place) {
    Gathered all = {value, {}, 0};
    exchange(what, mask, all, gather_all, place);
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

// ---- CUDA's functions -----------------------------------------------------------------------------------------------
// Each is a call of its own in the build `counted`: then a branch behind it is a branch of the kernel's. Lanes may be
// divided into groups of `width`, a power of two; a lane whose shuffle would leave its group keeps its own value.
template <class T> COUNTED_CALL T __shfl_sync(uint32_t mask, T value, int source,    // tests only
                                              int width = 32, EMULATOR_PLACE) {
    int l = emulator::lane();
    return emulator::shuffle("__shfl_sync", mask, value, l / width * width + (source & (width - 1)), {file, line});
}
template <class T> COUNTED_CALL T __shfl_up_sync(uint32_t mask, T value, unsigned delta,    // tests only
                                                 int width = 32, EMULATOR_PLACE) {
    int l = emulator::lane(), from = l - int(delta);
    return emulator::shuffle("__shfl_up_sync", mask, value, from < l / width * width ? l : from, {file, line});
}
template <class T> COUNTED_CALL T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                                                   EMULATOR_PLACE) {
    int l = emulator::lane(), from = l + int(delta);
    return emulator::shuffle("__shfl_down_sync", mask, value, from >= l / width * width + width ? l : from,
                             {file, line});
}
template <class T> COUNTED_CALL T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, EMULATOR_PLACE) {
    int l = emulator::lane(), from = l ^ bits;
    return emulator::shuffle("__shfl_xor_sync", mask, value, from >= l / width * width + width ? l : from,
                             {file, line});
}

COUNTED_CALL static inline void __syncwarp(uint32_t mask = 0xffffffffu, EMULATOR_PLACE) {    // tests only
    emulator::gather("__syncwarp", mask, 0, {file, line});
}
// The lanes that are here when no other can run
COUNTED_CALL static inline unsigned __activemask(EMULATOR_PLACE) {    // tests only
    return emulator::gather("__activemask", 0xffffffffu, 0, {file, line}).lanes;
}
COUNTED_CALL static inline unsigned __ballot_sync(uint32_t mask, int p, EMULATOR_PLACE) {
    return emulator::lanes_where(emulator::gather("__ballot_sync", mask, p != 0, {file, line}),
                                 [](uint64_t v) { return v != 0; });
}
COUNTED_CALL static inline int __any_sync(uint32_t mask, int p, EMULATOR_PLACE) {
    return emulator::lanes_where(emulator::gather("__any_sync", mask, p != 0, {file, line}),
                                 [](uint64_t v) { return v != 0; }) != 0;
}
COUNTED_CALL static inline int __all_sync(uint32_t mask, int p, EMULATOR_PLACE) {
    return emulator::lanes_where(emulator::gather("__all_sync", mask, p != 0, {file, line}),
                                 [](uint64_t v) { return v == 0; }) == 0;
}
template <class T> COUNTED_CALL unsigned __match_any_sync(uint32_t mask, T value, EMULATOR_PLACE) {    // tests only
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return emulator::lanes_where(emulator::gather("__match_any_sync", mask, bits, {file, line}),
                                 [bits](uint64_t v) { return v == bits; });
}
#define REDUCE(name, T, result)                                                                  \
    COUNTED_CALL static inline T name(uint32_t mask, T value, EMULATOR_PLACE) {                  \
        return emulator::reduce<T>(emulator::gather(#name, mask, uint64_t(value), {file, line}), \
                                   [](T a, T b) -> T { return result; });                        \
    }
REDUCE(__reduce_add_sync, unsigned, a + b)    // tests only
REDUCE(__reduce_add_sync, int, int(unsigned(a) + unsigned(b)))    // tests only
REDUCE(__reduce_min_sync, unsigned, min(a, b))    // tests only
REDUCE(__reduce_min_sync, int, min(a, b))    // tests only
REDUCE(__reduce_max_sync, unsigned, max(a, b))    // tests only
REDUCE(__reduce_max_sync, int, max(a, b))    // tests only
REDUCE(__reduce_and_sync, unsigned, a& b)    // tests only
REDUCE(__reduce_or_sync, unsigned, a | b)    // tests only
REDUCE(__reduce_xor_sync, unsigned, a ^ b)    // tests only
#undef REDUCE
