// What is counted of a launch.
#pragma once
#include "count_caches.h"
#include "count_examples.h"
#include "words.h"
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace counters {

struct Key {    // of a row: accesses at one site
    uint32_t site;
    int what, shared, size;
    auto tied() const { return std::tie(site, what, shared, size); }
    bool operator<(const Key& k) const { return tied() < k.tied(); }
};
struct Row : Cost {    // the sum of what one key's requests cost, and a few of them
    Examples examples;
};
struct Step {    // a basic block
    uint64_t executed = 0, lanes = 0, divergent = 0;
};
struct Launch {
    const void* kernel = nullptr;
    std::vector<uint32_t> entered;    // the first functions that thread 0 of a block entered
    dim3 grid, block;
    size_t shared_bytes = 0;
    std::map<Key, Row> rows;
    std::map<uint32_t, Step> steps;
    std::map<std::tuple<std::string, std::string, int>, Row> together;    // by what, file, line
    Caches caches;
};

}    // namespace counters
