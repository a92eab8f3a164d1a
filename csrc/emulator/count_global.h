// Finds accesses of global memory that nothing orders (count_order.h), of threads in one block or in two, and loads by
// __ldg of what the launch writes.
//
// Each piece of memory, as large as the accesses of its 4 KB allow, keeps its last read and its last write; an earlier
// one that is not ordered before these stays beside them, one of the same block and one of another. What is ordered
// before the last need not be kept: who comes after the last comes after it, too. So the first race of a piece is
// found, but where many threads touch a piece, not each pair of them.
#pragma once
#include "count_found.h"
#include <memory>

namespace counters {

class GlobalRaces {
    struct Seen {    // an access of a launch, in 12 bytes
        uint32_t epoch = 0, site = 0, thread : 10, what : 2, clock : 20;
        Seen() : thread(0), what(0), clock(0) {}
        explicit Seen(const Access& a) : epoch(a.when.epoch), site(a.site.offset) {
            thread = uint32_t(a.when.thread), what = a.what, clock = std::min(a.when.clock, (1u << 20) - 1);
        }
        Moment when() const { return {epoch, clock, int(thread)}; }
        Access access() const { return {{site, "", 0}, What(uint32_t(what)), when()}; }
    };
    struct Kept {
        Seen last, other, foreign;
    };
    struct Piece {
        Kept reads, writes;
    };
    struct Page {    // 4 KB
        uintptr_t number = 0;
        int shift = 0;    // a piece has so many bytes, as a power of two
        std::unique_ptr<Piece[]> pieces;
    };
    static constexpr size_t SIZE = 4096, NEAR = 1024;
    Found& found;
    const Order& order;
    std::unordered_map<uintptr_t, Page> memory;
    Page* near[NEAR] = {};    // pages, by the last bits of their numbers
    std::unordered_map<uintptr_t, Access> read_only;    // bytes that __ldg has read

    Page& page(uintptr_t number, int shift) {
        Page*& found = near[number % NEAR];
        if (!found || found->number != number) {
            found = &memory[number];
            if (!found->pieces)
                found->number = number, found->shift = shift, found->pieces.reset(new Piece[SIZE >> shift]);
        }
        if (shift < found->shift) {    // each piece becomes several
            std::unique_ptr<Piece[]> finer(new Piece[SIZE >> shift]);
            for (size_t i = 0; i < SIZE >> shift; i++) finer[i] = found->pieces[i >> (found->shift - shift)];
            found->pieces = std::move(finer), found->shift = shift;
        }
        return *found;
    }
    bool ordered(const Seen& a, const Access& b) const {
        return !order.of_this_launch(a.epoch) || order.before(a.when(), b.when.thread);
    }
    void compare(const Kept& before, const Access& b) {
        for (const Seen* a : {&before.last, &before.other, &before.foreign})
            if (!(a->what == ATOMIC && b.what == ATOMIC) && !ordered(*a, b)) found.add(RACE, false, a->access(), b);
    }
    void keep(Kept& kept, const Access& now) {
        Seen& last = kept.last;
        bool follows = last.what == ATOMIC && now.what == ATOMIC;    // at one address, who comes after now, after last
        bool hides = last.what != ATOMIC && now.what == ATOMIC;    // another atomic operation races with last alone
        if (!follows && (hides || !ordered(last, now)))
            (order.of_this_block(last.when()) ? kept.other : kept.foreign) = last;
        last = Seen(now);
    }

public:
    GlobalRaces(Found& found, const Order& order) : found(found), order(order) {}
    void launch_begins() { read_only.clear(); }
    void forget() {
        memory.clear();
        std::fill(near, near + NEAR, nullptr);
    }
    // Its size is a power of two, and divides its address
    void access(const Access& now, uintptr_t at, size_t size) {
        bool writes = now.what == STORE || now.what == ATOMIC;
        int shift = __builtin_ctzll(size);
        Page& here = page(at / SIZE, shift);
        size_t first = at % SIZE >> here.shift;
        for (size_t i = first; i < first + (size >> here.shift); i++) {
            Piece& piece = here.pieces[i];
            compare(piece.writes, now);
            if (writes) compare(piece.reads, now);
            keep(writes ? piece.writes : piece.reads, now);
        }
        if (!writes || read_only.empty()) return;
        for (uintptr_t byte = at; byte < at + size; byte++)
            if (auto load = read_only.find(byte); load != read_only.end()) {
                found.add(STALE, false, load->second, now);
                return;
            }
    }
    void load_read_only(const Access& now, uintptr_t at, size_t size) {
        for (uintptr_t byte = at; byte < at + size; byte++) read_only[byte] = now;
        Page& here = page(at / SIZE, __builtin_ctzll(size));
        size_t first = at % SIZE >> here.shift;
        for (size_t i = first; i < first + (size >> here.shift); i++)
            if (const Seen& written = here.pieces[i].writes.last; order.of_this_launch(written.epoch)) {
                found.add(STALE, false, now, written.access());
                return;
            }
    }
};

}    // namespace counters
