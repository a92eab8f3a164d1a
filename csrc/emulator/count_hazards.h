// Looks for hazards of memory in what count.cpp sees: races in shared and in global memory, reads of what nobody wrote,
// reads of a copy before its wait, loads by __ldg of what the launch writes, and accesses just beside an array.
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
    struct Fresh : Written {       // an array in global memory that nobody had written
        bool filled;               // with 0xff, so that each write shows
    };
    std::vector<Fresh> fresh;
    std::vector<std::pair<uintptr_t, uintptr_t>> edges;    // from, to: beside arrays

    void look(Written& written, bool shared, const Access& now, bool reads, uintptr_t at, size_t size) {
        if (reads && !written.some(at, size)) found.add(UNWRITTEN, shared, now, now);
        if (now.what == STORE || now.what == ATOMIC || (now.what == COPY && shared)) written.write(at, size);
    }

    struct Load {
        Access access;
        bool shared;
        uintptr_t at;
        size_t size;
    };
    Load loads[4];    // the last of the thread that runs, if it only loaded since
    int held = 0;
    void accessed(bool shared, const Access& now, bool reads, uintptr_t at, size_t size) {
        if (shared) {
            look(dynamic.has(at) ? dynamic : statics, true, now, reads, at, size);
            return now.what == COPY ? races.copy(now, at, size) : races.access(now, at, size);
        }
        for (auto& [from, to] : edges)
            if (at < to && from < at + size) found.add(OUTSIDE, false, now, now);
        for (Fresh& array : fresh) {
            if (!array.has(at)) continue;
            if (reads && array.filled && !array.some(at, size)) array.adopt(at, size);
            look(array, false, now, reads, at, size);
        }
        global_races.access(now, at, size);
    }

public:
    void launch_begins() { found.hazards.clear(), order.launch_begins(); }
    void block_begins(int64_t index, uintptr_t statics_at, size_t statics_size, uintptr_t at, size_t size) {
        order.block_begins(index), races.block_begins();
        statics.begin(statics_at, statics_size), dynamic.begin(at, size);
    }
    // reads: whether the result depends on what was there. That of atomicExch need not
    void access(bool shared, const Access& now, bool reads, uintptr_t at, size_t size) {
        if (held) look_at_loads();
        accessed(shared, now, reads, at, size);
    }
    void load(bool shared, const Access& now, uintptr_t at, size_t size) {
        if (held == 4) look_at_loads();
        loads[held++] = {now, shared, at, size};
    }
    // What a thread loaded may be a guess, which the atomicCAS that follows proves: then it is no access
    void proved(uintptr_t at) {
        for (int i = 0; i < held; i++)
            if (loads[i].at == at) loads[i].size = 0;
    }
    void look_at_loads() {    // before other threads run, or anything orders them
        for (int i = 0; i < held; i++)
            if (loads[i].size) accessed(loads[i].shared, loads[i].access, true, loads[i].at, loads[i].size);
        held = 0;
    }
    void copied(int thread, uintptr_t at, size_t size) { races.copied(thread, at, size); }
    void load_read_only(const Access& now, uintptr_t at, size_t size) { global_races.load_read_only(now, at, size); }

    // ---- between launches -------------------------------------------------------------------------------------------
    void nobody_wrote(uintptr_t at, size_t size) {
        written_by_others(at, size);
        const unsigned char *start = (const unsigned char*)at, *end = start + size;
        bool filled = std::all_of(start, end, [](unsigned char byte) { return byte == 0xff; });
        if (size) fresh.push_back({Written(at, size), filled});
    }
    void written_by_others(uintptr_t at, size_t size) {    // forget what is known of these arrays
        auto old = [=](const Written& array) { return array.meets(at, size); };
        fresh.erase(std::remove_if(fresh.begin(), fresh.end(), old), fresh.end());
    }
    void no_array(uintptr_t at, size_t size) {
        if (size) edges.push_back({at, at + size});
    }
    void host_writes(uintptr_t at, size_t size) {
        for (Written& array : fresh) array.write(at, size);
    }
    void forget() { global_races.forget(); }
};

}    // namespace counters
