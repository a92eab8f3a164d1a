// Writes what is counted as JSON, which csrc/count.py reads.
#pragma once
#include "count_examples.h"
#include "count_found.h"
#include "words.h"

namespace counters {

const char* const NAMES[] = {"load", "store", "atomic", "copy", "step"};
const char* const MISTAKES[] = {"race", "early", "stale", "unwritten", "outside"};

inline std::string number(const char* name, uint64_t value) {
    return "\"" + std::string(name) + "\":" + std::to_string(value);
}
inline std::string text(const char* name, const std::string& value) {
    std::string escaped;
    for (char c : value) escaped += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    return "\"" + std::string(name) + "\":\"" + escaped + "\"";
}
inline std::string triple(const char* name, dim3 v) {
    return "\"" + std::string(name) + "\":[" + std::to_string(v.x) + "," + std::to_string(v.y) + "," +
           std::to_string(v.z) + "]";
}
inline std::string costs(const Cost& c) {
    return number("inst_executed", c.requests) + "," + number("thread_inst_executed", c.lanes) + "," +
           number("memory_l2_theoretical_sectors_global", c.sectors) + "," +
           number("memory_l2_theoretical_sectors_global_ideal", c.sectors_ideal) + "," +
           number("memory_l1_wavefronts_shared", c.wavefronts) + "," +
           number("memory_l1_wavefronts_shared_ideal", c.wavefronts_ideal) + "," + number("collisions", c.collisions);
}
// [time, block, warp, array, active, address of each active lane]
inline std::string kept(const Examples& examples) {
    std::string all;
    examples.each([&](const Example& e) {
        all += (all.empty() ? "[" : ",[") + std::to_string(e.time) + "," + std::to_string(e.block) + "," +
               std::to_string(e.warp) + "," + std::to_string(e.array) + "," + std::to_string(e.active);
        for (int l = 0; l < 32; l++)
            if (e.active >> l & 1) all += "," + std::to_string(e.at[l]);
        all += "]";
    });
    return "\"examples\":[" + all + "]";
}
template <class List, class F> std::string list(const char* name, const List& of, F write) {
    std::string all;
    for (auto& [key, value] : of) all += (all.empty() ? "{" : ",{") + write(key, value) + "}";
    return "\"" + std::string(name) + "\":[" + all + "]";
}

inline std::string access(const char* name, const Access& a, int64_t block) {
    return "\"" + std::string(name) + "\":{" + number("site", a.site.offset) + "," + text("file", a.site.file) + "," +
           number("line", uint64_t(a.site.line)) + "," + text("what", NAMES[a.what]) + "," +
           number("thread", uint64_t(a.when.thread)) + "," + number("block", uint64_t(block)) + "}";
}

}    // namespace counters
