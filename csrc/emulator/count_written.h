// Which bytes of memory somebody has written: of shared memory since the block began, and of arrays in global memory
// of which it is known that nobody had written them before.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace counters {

class Written {    // a piece of memory, a bit for each byte
    uintptr_t start = 0, end = 0;
    std::vector<uint64_t> bits;
    template <class F> bool each(uintptr_t at, size_t size, F f) {    // words of bits, until f says no
        uintptr_t stop = std::min(at + size, end);
        for (uintptr_t from = std::max(at, start); from < stop;) {
            uintptr_t i = from - start, to = std::min(stop, start + (i / 64 + 1) * 64);
            uint64_t mask = (to - from == 64 ? ~uint64_t(0) : (uint64_t(1) << (to - from)) - 1) << i % 64;
            if (!f(bits[i / 64], mask)) return false;
            from = to;
        }
        return true;
    }

public:
    Written() = default;
    Written(uintptr_t start, size_t size) { begin(start, size); }
    void begin(uintptr_t from, size_t size) {    // nobody has written anything
        start = from, end = from + size;
        bits.assign((size + 63) / 64, 0);
    }
    // Bytes that are no longer 0xff: a function wrote them that is not compiled with counters, as fread
    void adopt(uintptr_t at, size_t size) {
        for (uintptr_t byte = std::max(at, start); byte < std::min(at + size, end); byte++)
            if (*(const unsigned char*)byte != 0xff) write(byte, 1);
    }
    bool has(uintptr_t at) const { return at >= start && at < end; }
    bool meets(uintptr_t at, size_t size) const { return at < end && start < at + size; }
    void write(uintptr_t at, size_t size) {
        each(at, size, [](uint64_t& word, uint64_t mask) {
            word |= mask;
            return true;
        });
    }
    // Of each 8 bytes, or of all if they are fewer, at least one: who copies a structure reads its padding
    bool some(uintptr_t at, size_t size) {
        size_t piece = std::min(size, size_t(8));
        for (size_t i = 0; i < size; i += piece)
            if (has(at + i) && each(at + i, piece, [](uint64_t& word, uint64_t mask) { return !(word & mask); }))
                return false;
        return true;
    }
};

}    // namespace counters
