// What one memory instruction of a warp costs: sectors of global memory, wavefronts of shared memory. docs/counting.md
// derives both.
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>

namespace counters {

enum What {
    LOAD,
    STORE,
    ATOMIC,
    COPY,    // cp.async: a read of global memory and a write of shared memory
    STEP     // no access: a basic block begins
};

struct Request {
    What what;
    bool shared;
    int size;           // of the access of a lane, in bytes: at most 16
    uint32_t active;    // a bit for each lane that takes part
    uintptr_t at[32];
};

struct Cost {    // of one request, or a sum
    uint64_t requests = 0, lanes = 0, sectors = 0, sectors_ideal = 0, wavefronts = 0, wavefronts_ideal = 0,
             collisions = 0;
    Cost& operator+=(const Cost& c) {
        requests += c.requests, lanes += c.lanes, sectors += c.sectors, sectors_ideal += c.sectors_ideal;
        wavefronts += c.wavefronts, wavefronts_ideal += c.wavefronts_ideal, collisions += c.collisions;
        return *this;
    }
};

constexpr int MOST_SECTORS = 64;    // 32 lanes, each across the border of two

struct Numbers {    // at most 128, sorted when that is needed
    uintptr_t of[128];
    int count = 0;
    void add(uintptr_t n) { of[count++] = n; }
    void sort() { std::sort(of, of + count); }
    int distinct() {
        sort();
        return count = int(std::unique(of, of + count) - of);
    }
};

// Lanes of an atomic operation that find another lane of the request at their address, and wait for it
inline uint64_t collisions_of(const Request& r) {
    if (r.what != ATOMIC) return 0;
    Numbers address;
    for (int l = 0; l < 32; l++)
        if (r.active >> l & 1) address.add(r.at[l]);
    int lanes = address.count;
    return uint64_t(lanes - address.distinct());
}

// ---- global memory: sectors of 32 bytes -----------------------------------------------------------------------------
// The sectors that the lanes touch, each once; ideal: as few as could hold the distinct bytes.
inline Cost cost_of_global(const Request& r, uintptr_t (&sector)[MOST_SECTORS]) {
    Cost cost;
    Numbers touched, address;
    for (int l = 0; l < 32; l++) {
        if (!(r.active >> l & 1)) continue;
        for (uintptr_t s = r.at[l] / 32; s <= (r.at[l] + r.size - 1) / 32; s++) touched.add(s);
        address.add(r.at[l]);
    }
    cost.requests = 1, cost.lanes = uint64_t(address.count);
    cost.sectors = uint64_t(touched.distinct());
    std::copy(touched.of, touched.of + touched.count, sector);
    address.sort();
    uintptr_t bytes = 0, end = 0;
    for (int i = 0; i < address.count; i++) {    // intervals may overlap
        bytes += address.of[i] + r.size - std::max(address.of[i], std::min(end, address.of[i] + r.size));
        end = std::max(end, address.of[i] + r.size);
    }
    cost.sectors_ideal = (bytes + 31) / 32;
    cost.collisions = collisions_of(r);
    return cost;
}

// ---- shared memory: 32 banks of 4 bytes -----------------------------------------------------------------------------
// One wavefront serves each bank with one word; a word may go to many lanes. So lanes that are served together take as
// many wavefronts as the busiest bank has distinct words.
inline int busiest_bank(Numbers& words, bool each_lane_alone) {
    int distinct = each_lane_alone ? words.count : words.distinct(), most = 0, of_bank[32] = {};
    for (int i = 0; i < distinct; i++) most = std::max(most, ++of_bank[words.of[i] % 32]);
    return most;
}

// Whether lanes l and l ^ bit have the same address wherever both are active
inline bool pairs_agree(const Request& r, int bit) {
    for (int l = 0; l < 32; l++)
        if (r.active >> l & 1 && r.active >> (l ^ bit) & 1 && r.at[l] != r.at[l ^ bit]) return false;
    return true;
}

// A wavefront moves 128 bytes to or from registers: accesses of 4 bytes are served for 32 lanes at once, of 8 bytes for
// 16 neighbours, of 16 bytes for 8. A load whose pairs of lanes agree on the address serves twice as many.
// Ideal: one wavefront for each such group. Lanes of an atomic operation at one address follow one another.
inline Cost cost_of_shared(const Request& r) {
    Cost cost;
    int group = r.size <= 4 ? 32 : r.size == 8 ? 16
                                               : 8;
    if (r.what == LOAD && group < 32 && (pairs_agree(r, 1) || pairs_agree(r, 2))) group *= 2;
    for (int start = 0; start < 32; start += group) {
        Numbers words;
        for (int l = start; l < start + group; l++)
            for (uintptr_t w = r.at[l] / 4; r.active >> l & 1 && w <= (r.at[l] + r.size - 1) / 4; w++) words.add(w);
        if (words.count) cost.wavefronts_ideal++;
        cost.wavefronts += uint64_t(busiest_bank(words, r.what == ATOMIC));
    }
    cost.requests = 1, cost.lanes = uint64_t(__builtin_popcount(r.active));
    cost.collisions = collisions_of(r);
    return cost;
}

// ldmatrix: lane 8 i + j has the address of row j of matrix i, of 16 bytes. A matrix is served at a time.
inline Cost cost_of_matrices(const uint64_t* row, uint32_t lanes, int matrices) {
    Cost cost;
    for (int i = 0; i < matrices; i++) {
        Numbers words;
        for (int j = 0; j < 8; j++)
            for (int w = 0; lanes >> (8 * i + j) & 1 && w < 4; w++) words.add(row[8 * i + j] / 4 + w);
        if (words.count) cost.wavefronts_ideal++;
        cost.wavefronts += uint64_t(busiest_bank(words, false));
    }
    return cost;
}

}    // namespace counters
