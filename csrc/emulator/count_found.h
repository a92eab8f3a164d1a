// The hazards that were found in a launch: pairs of lines, with an example and how often.
#pragma once
#include "count_order.h"
#include "count_request.h"
#include <map>
#include <tuple>

namespace counters {

struct Site {
    uint32_t offset;     // in the library; 0: the place stands in the next two
    const char* file;
    int line;
    auto tied() const { return std::make_tuple(offset, (uintptr_t)file, line); }
};
struct Access {
    Site site;
    What what;
    Moment when;
};
enum Mistake {
    RACE,         // nothing orders two accesses, one of which writes
    EARLY,        // an access of what a cp.async has not been waited for
    STALE,        // __ldg of what the launch writes
    UNWRITTEN,    // a read of what nobody wrote: one access, given twice
    OUTSIDE,      // beside an array, in none: one access, given twice
};
struct Hazard {    // an example; who was in which block
    Access one, other;
    int64_t block_of_one, block_of_other;
    uint64_t times = 0;
};

struct Found {
    const Order& order;
    std::map<std::tuple<Mistake, bool, decltype(Site().tied()), What, decltype(Site().tied()), What>, Hazard> hazards;
    void add(Mistake mistake, bool shared, const Access& a, const Access& b) {
        bool swap = b.site.tied() < a.site.tied();
        const Access &one = swap ? b : a, &other = swap ? a : b;
        Hazard& hazard = hazards[{mistake, shared, one.site.tied(), one.what, other.site.tied(), other.what}];
        if (!hazard.times++) hazard = {one, other, order.block_of(one.when), order.block_of(other.when), 1};
    }
};

}    // namespace counters
