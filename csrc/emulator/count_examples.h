// A few requests of each line as they were: who took part, and at which addresses, from the start of the array, which
// do not differ from run to run. `genmini count --html` draws them.
#pragma once
#include "count_request.h"
#include <string>
#include <vector>

namespace counters {

struct Example {    // of one request
    uint64_t time;     // requests that this process made before it
    int64_t block;
    int warp;          // of the block
    int array;         // its number, or NO_ARRAY, or SHARED
    uint32_t active;
    int64_t at[32];    // bytes from where the array begins, or from the start of the sector (of shared memory: from
                       // a multiple of 128 bytes before it), so that at / 32 is a sector and at / 4 % 32 a bank
};
constexpr int NO_ARRAY = -1, SHARED = -2;

struct Array {    // of global memory, that the launch was given
    uintptr_t start, end;
    std::string name;
};

// The first requests of a site, and some of the rest, evenly spread
class Examples {
    static constexpr size_t FIRST = 8, SPREAD = 8;
    std::vector<Example> first, spread;
    uint64_t seen = 0, step = 1;

public:
    uintptr_t base = 0;    // where addresses begin that are in no array: the first sector that was seen
    bool wants_next() { return ++seen <= FIRST || (seen - FIRST) % step == 0; }
    void add(const Example& e) {
        if (seen <= FIRST) first.push_back(e);
        else spread.push_back(e);
        if (spread.size() < SPREAD) return;
        for (size_t i = 0; i < SPREAD / 2; i++) spread[i] = spread[2 * i + 1];    // those of every second step
        spread.resize(SPREAD / 2), step *= 2;
    }
    template <class F> void each(F f) const {
        for (const Example& e : first) f(e);
        for (const Example& e : spread) f(e);
    }
};

// base: where shared memory begins; of global memory it is looked up
inline Example example_of(const Request& r, const std::vector<Array>& arrays, Examples& of, uintptr_t base) {
    Example e = {0, 0, 0, r.shared ? SHARED : NO_ARRAY, r.active, {}};
    uintptr_t lowest = UINTPTR_MAX;
    for (int l = 0; l < 32; l++)
        if (r.active >> l & 1) lowest = std::min(lowest, r.at[l]);
    if (!r.shared) {
        for (size_t i = 0; i < arrays.size(); i++)
            if (lowest >= arrays[i].start && lowest < arrays[i].end) e.array = int(i), base = arrays[i].start / 32 * 32;
        if (e.array == NO_ARRAY) base = of.base = of.base ? of.base : lowest / 32 * 32;
    }
    for (int l = 0; l < 32; l++)
        if (r.active >> l & 1) e.at[l] = int64_t(r.at[l]) - int64_t(base);
    return e;
}

}    // namespace counters
