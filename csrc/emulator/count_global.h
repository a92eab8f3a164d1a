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
    struct Atomics {    // earlier than the last one, and not ordered before it
        Seen other, foreign;
    };
    template <class T> using List = std::unique_ptr<T[]>;
    struct Page {    // 4 KB
        uintptr_t number = 0;
        int shift = 0;    // a piece has so many bytes, as a power of two
        List<Piece> pieces;
        List<Atomics> atomics;     // of each piece, if one has any
        List<Seen> read_only;      // the last __ldg of each piece, if there was one
    };
    static constexpr size_t SIZE = 4096, NEAR = 1024;
    Found& found;
    const Order& order;
    std::unordered_map<uintptr_t, Page> memory;
    Page* near[NEAR] = {};    // pages, by the last bits of their numbers

    template <class T> static void refine(List<T>& of, int shift, int finer) {
        if (!of) return;
        List<T> fresh(new T[SIZE >> finer]);
        for (size_t i = 0; i < SIZE >> finer; i++) fresh[i] = of[i >> (shift - finer)];
        of = std::move(fresh);
    }
    Page& page(uintptr_t number, int shift) {
        Page*& found = near[number % NEAR];
        if (!found || found->number != number) {
            found = &memory[number];
            if (!found->pieces)
                found->number = number, found->shift = shift, found->pieces.reset(new Piece[SIZE >> shift]);
        }
        if (shift < found->shift) {    // each piece becomes several
            refine(found->pieces, found->shift, shift), refine(found->atomics, found->shift, shift);
            refine(found->read_only, found->shift, shift), found->shift = shift;
        }
        return *found;
    }
    bool ordered(const Seen& a, const Access& b) const {
        return !order.of_this_launch(a.epoch) || order.before(a.when(), b.when.thread);
    }
    void compare(const Seen& a, const Access& b) {
        if (!(a.what == ATOMIC && b.what == ATOMIC) && !ordered(a, b)) found.add(RACE, false, a.access(), b);
    }
    void compare(const Kept& before, const Access& b) {
        for (const Seen* a : {&before.last, &before.other, &before.foreign}) compare(*a, b);
    }
    template <class T> Seen& beside(T& kept, const Seen& last) const {
        return order.of_this_block(last.when()) ? kept.other : kept.foreign;
    }
    void keep(Kept& kept, const Access& now) {
        Seen& last = kept.last;
        bool follows = last.what == ATOMIC && now.what == ATOMIC;    // see atomics()
        bool hides = last.what != ATOMIC && now.what == ATOMIC;    // another atomic operation races with last alone
        if (!follows && (hides || !ordered(last, now))) beside(kept, last) = last;
        last = Seen(now);
    }
    // Atomic operations race with none of their kind, but with a load that nothing orders. Who stores where it made the
    // last one may know that it was the last, as of a ticket that is set to zero: no race with those before
    void atomics(Page& page, size_t i, const Access& now) {
        const Seen& last = page.pieces[i].writes.last;
        if (now.what == ATOMIC && last.what == ATOMIC && !ordered(last, now)) {
            if (!page.atomics) page.atomics.reset(new Atomics[SIZE >> page.shift]);
            beside(page.atomics[i], last) = last;
        }
        if (now.what == ATOMIC || !page.atomics) return;
        Atomics& before = page.atomics[i];
        if (now.what == STORE && last.what == ATOMIC && ordered(last, now)) before = {};
        compare(before.other, now), compare(before.foreign, now);
    }

public:
    GlobalRaces(Found& found, const Order& order) : found(found), order(order) {}
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
            atomics(here, i, now);
            compare(piece.writes, now);
            if (writes) compare(piece.reads, now);
            keep(writes ? piece.writes : piece.reads, now);
        }
        for (size_t i = first; writes && here.read_only && i < first + (size >> here.shift); i++)
            if (const Seen& load = here.read_only[i]; order.of_this_launch(load.epoch)) {
                found.add(STALE, false, load.access(), now);
                return;
            }
    }
    void load_read_only(const Access& now, uintptr_t at, size_t size) {
        Page& here = page(at / SIZE, __builtin_ctzll(size));
        if (!here.read_only) here.read_only.reset(new Seen[SIZE >> here.shift]);
        size_t first = at % SIZE >> here.shift, end = first + (size >> here.shift);
        for (size_t i = first; i < end; i++) here.read_only[i] = Seen(now);
        for (size_t i = first; i < end; i++)
            if (const Seen& written = here.pieces[i].writes.last; order.of_this_launch(written.epoch)) {
                found.add(STALE, false, now, written.access());
                return;
            }
    }
};

}    // namespace counters
