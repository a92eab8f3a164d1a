// Finds accesses of shared memory that nothing orders: two threads of a block, one address, one of them writes, and
// neither a barrier of the block nor a __syncwarp of both lies between. Shuffles, votes and ldmatrix order no memory.
//
// A barrier of the block begins an epoch, and only accesses of one epoch are compared. Within a warp each lane has a
// clock, which __syncwarp advances. A lane knows how far the clocks of the others were when they last met, directly or
// through others: what lane m did at time c is before all that lane l does once l knows that m is beyond c. Two atomic
// operations are no race. The order in which the emulator runs the threads does not matter: what is not ordered is
// found, also where it came out right.
#pragma once
#include "count_request.h"
#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace counters {

struct Site {
    uint32_t offset;     // in the library; 0: the place stands in the next two
    const char* file;
    int line;
    auto tied() const { return std::make_tuple(offset, std::string(file), line); }
};
struct Access {    // of a word of shared memory
    Site site;
    What what;
    int thread;
    uint32_t bytes, clock;    // the bytes of the word, as bits
};
struct Race {    // of two lines
    Access one, other;    // an example
    int64_t block;
    uint64_t times = 0;
};

class Races {
    struct Word {
        uint64_t epoch = 0;
        std::vector<Access> reads, writes;    // the last of each thread in this epoch
    };
    std::map<uintptr_t, std::vector<Word>> memory;    // by the start of 4 KB
    uint64_t epoch = 1;
    uint32_t clock[1024][32];    // [t][m]: how far lane m of its warp had come, as thread t knows

    Word& word(uintptr_t number) {
        std::vector<Word>& page = memory[number / 1024];
        if (page.empty()) page.resize(1024);
        Word& found = page[number % 1024];
        if (found.epoch != epoch) found.epoch = epoch, found.reads.clear(), found.writes.clear();
        return found;
    }
    bool ordered(const Access& a, const Access& b) const {    // a was first
        if (a.thread == b.thread || !(a.bytes & b.bytes) || (a.what == ATOMIC && b.what == ATOMIC)) return true;
        return a.thread / 32 == b.thread / 32 && clock[b.thread][a.thread % 32] > a.clock;
    }
    void compare(const std::vector<Access>& before, const Access& b, int64_t block) {
        for (const Access& a : before)
            if (!ordered(a, b)) {
                bool swap = b.site.tied() < a.site.tied();
                const Access &x = swap ? b : a, &y = swap ? a : b;
                Race& race = found[{x.site.tied(), x.what, y.site.tied(), y.what}];
                if (!race.times++) race.one = x, race.other = y, race.block = block;
            }
    }
    static void keep(std::vector<Access>& last, const Access& a) {
        for (Access& b : last)
            if (b.thread == a.thread && b.bytes == a.bytes) {
                b = a;
                return;
            }
        last.push_back(a);
    }

public:
    using Place = std::tuple<uint32_t, std::string, int>;
    std::map<std::tuple<Place, int, Place, int>, Race> found;

    void block_begins() {
        epoch++;
        memset(clock, 0, sizeof clock);
    }
    void barrier() { epoch++; }
    void warp_meets(int warp, uint32_t lanes) {
        uint32_t joint[32] = {};
        for (int l = 0; l < 32; l++)
            for (int m = 0; m < 32; m++)
                if (lanes >> l & 1) joint[m] = std::max(joint[m], clock[32 * warp + l][m] + (l == m));
        for (int l = 0; l < 32; l++)
            if (lanes >> l & 1) memcpy(clock[32 * warp + l], joint, sizeof joint);
    }
    void access(int thread, What what, Site site, uintptr_t at, size_t size, int64_t block) {
        for (uintptr_t number = at / 4; number <= (at + size - 1) / 4; number++) {
            uint32_t bytes = 0;
            for (int i = 0; i < 4; i++)
                if (4 * number + i >= at && 4 * number + i < at + size) bytes |= 1u << i;
            Word& here = word(number);
            Access now = {site, what, thread, bytes, clock[thread][thread % 32]};
            compare(here.writes, now, block);
            if (what != LOAD) compare(here.reads, now, block);
            keep(what == LOAD ? here.reads : here.writes, now);
        }
    }
};

}    // namespace counters
