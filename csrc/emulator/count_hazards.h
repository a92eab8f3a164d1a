// Looks for hazards of memory in what count.cpp sees: races in shared and in global memory, reads of what nobody wrote,
// reads of a copy before its wait, and loads by __ldg of what the launch writes.
#pragma once
#include "count_global.h"
#include "count_races.h"
#include "count_written.h"

namespace counters {

class Hazards {
public:
    Order order;
    Found found{order, {}};

private:
    Races races{found, order};
    GlobalRaces global_races{found, order};
    Written statics, dynamic;      // shared memory
    std::vector<Written> fresh;    // arrays in global memory that nobody had written

    void look(Written& written, bool shared, const Access& now, bool reads, uintptr_t at, size_t size) {
        if (reads && !written.some(at, size)) found.add(UNWRITTEN, shared, now, now);
        if (now.what == STORE || now.what == ATOMIC || (now.what == COPY && shared)) written.write(at, size);
    }

public:
    void launch_begins() { found.hazards.clear(), order.launch_begins(), global_races.launch_begins(); }
    void block_begins(int64_t index, uintptr_t statics_at, size_t statics_size, uintptr_t at, size_t size) {
        order.block_begins(index), races.block_begins();
        statics.begin(statics_at, statics_size), dynamic.begin(at, size);
    }
    // reads: whether the result depends on what was there. That of atomicExch need not
    void shared(const Access& now, bool reads, uintptr_t at, size_t size) {
        look(dynamic.has(at) ? dynamic : statics, true, now, reads, at, size);
        now.what == COPY ? races.copy(now, at, size) : races.access(now, at, size);
    }
    void copied(int thread, uintptr_t at, size_t size) { races.copied(thread, at, size); }
    void global(const Access& now, bool reads, uintptr_t at, size_t size) {
        for (Written& array : fresh)
            if (array.has(at)) look(array, false, now, reads, at, size);
        global_races.access(now, at, size);
    }
    void load_read_only(const Access& now, uintptr_t at, size_t size) { global_races.load_read_only(now, at, size); }

    // ---- between launches -------------------------------------------------------------------------------------------
    void nobody_wrote(uintptr_t at, size_t size) {
        written_by_others(at, size);
        if (size) fresh.emplace_back(at, size);
    }
    void written_by_others(uintptr_t at, size_t size) {    // forget what is known of these arrays
        auto old = [=](const Written& array) { return array.meets(at, size); };
        fresh.erase(std::remove_if(fresh.begin(), fresh.end(), old), fresh.end());
    }
    void host_writes(uintptr_t at, size_t size) {
        for (Written& array : fresh) array.write(at, size);
    }
    void forget() { global_races.forget(); }
};

}    // namespace counters
