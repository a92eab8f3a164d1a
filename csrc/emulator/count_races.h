// Finds accesses of shared memory that nothing orders (count_order.h): two threads of a block, one address, one of them
// writes. Two atomic operations are no race. The order in which the emulator runs the threads does not matter: what is
// not ordered is found, also where it came out right.
//
// A cp.async writes at some time between its issue and the wait of its thread. So it is compared as a write at both,
// and between them nobody may touch its destination.
#pragma once
#include "count_found.h"

namespace counters {

class Races {
    struct Touch : Access {
        uint32_t bytes;    // of the word, as bits
    };
    struct Word {
        uint32_t epoch = 0;
        std::vector<Touch> reads, writes;    // the last of each thread in this epoch
    };
    Found& found;
    const Order& order;
    std::unordered_map<uintptr_t, std::vector<Word>> memory;    // by the start of 4 KB
    std::unordered_map<uintptr_t, Access> under_way;            // by word: copies that were not waited for

    Word& word(uintptr_t number, uint32_t epoch) {
        std::vector<Word>& page = memory[number / 1024];
        if (page.empty()) page.resize(1024);
        Word& found = page[number % 1024];
        if (found.epoch != epoch) found.epoch = epoch, found.reads.clear(), found.writes.clear();
        return found;
    }
    void compare(const std::vector<Touch>& before, const Touch& b) {
        for (const Touch& a : before)
            if (a.bytes & b.bytes && !(a.what == ATOMIC && b.what == ATOMIC) && !order.before(a.when, b.when.thread))
                found.add(RACE, true, a, b);
    }
    static void keep(std::vector<Touch>& last, const Touch& a) {
        for (Touch& b : last)
            if (b.when.thread == a.when.thread && b.bytes == a.bytes && (b.what == ATOMIC || a.what != ATOMIC)) {
                b = a;
                return;
            }
        last.push_back(a);
    }

public:
    Races(Found& found, const Order& order) : found(found), order(order) {}
    void block_begins() { under_way.clear(); }
    void access(const Access& now, uintptr_t at, size_t size) {
        for (uintptr_t number = at / 4; number <= (at + size - 1) / 4; number++) {
            uint32_t bytes = 0;
            for (int i = 0; i < 4; i++)
                if (4 * number + i >= at && 4 * number + i < at + size) bytes |= 1u << i;
            Touch touch = {{now}, bytes};
            Word& here = word(number, now.when.epoch);
            compare(here.writes, touch);
            if (now.what != LOAD) compare(here.reads, touch);
            keep(now.what == LOAD ? here.reads : here.writes, touch);
            if (under_way.empty()) continue;
            auto copy = under_way.find(number);
            if (copy != under_way.end()) found.add(EARLY, true, copy->second, now);
        }
    }
    void copy(const Access& now, uintptr_t at, size_t size) {
        access(now, at, size);
        for (size_t i = 0; i < size / 4; i++) under_way[at / 4 + i] = now;
    }
    void copied(int thread, uintptr_t at, size_t size) {    // the thread has waited
        auto copy = under_way.find(at / 4);
        if (copy == under_way.end()) return;
        Access now = copy->second;
        for (size_t i = 0; i < size / 4; i++) under_way.erase(at / 4 + i);
        now.when = order.now(thread);
        access(now, at, size);
    }
};

}    // namespace counters
