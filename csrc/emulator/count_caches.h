// The traffic of a launch in a simple model: the first cache belongs to a block, holds all that the block reads, and
// lets every write through; the second cache is empty at first, holds everything, and writes back at the end.
#pragma once
#include "count_request.h"
#include <unordered_map>

namespace counters {

class Caches {
    struct Sector {    // 32 bytes of global memory
        int64_t block = -1;                      // the last that read it through its first cache
        bool in_cache = false, dirty = false;    // of the second one
    };
    std::unordered_map<uintptr_t, Sector> memory;    // by address / 32

public:
    uint64_t l2_read = 0, l2_write = 0, l2_atomic = 0, dram_read = 0, dram_write = 0;    // in sectors
    void request(const Request& request, int64_t block, const uintptr_t* sector, uint64_t sectors) {
        bool past_first_cache = request.what == COPY && request.size == 16;    // cp.async.cg
        for (uint64_t i = 0; i < sectors; i++) {
            Sector& s = memory[sector[i]];
            if (request.what == LOAD || request.what == COPY) {
                if (s.block != block || past_first_cache) l2_read++;
                if (!past_first_cache) s.block = block;
            } else (request.what == STORE ? l2_write : l2_atomic)++;
            if (request.what != STORE && !s.in_cache) dram_read++;
            if ((request.what == STORE || request.what == ATOMIC) && !s.dirty) dram_write++, s.dirty = true;
            s.in_cache = true;
        }
    }
};

}    // namespace counters
