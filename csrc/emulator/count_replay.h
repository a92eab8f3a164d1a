// Lines up what the lanes of a warp did: which of them made an access together, where they parted and met again.
//
// Each lane has left a trace: basic blocks that it began, and accesses. Lanes that part after a block meet again where
// all ways from it lead through: its immediate post-dominator in the graph of the blocks that these traces visited, or
// the return of the function. (So do GPUs, whose compilers mark that place.)
#pragma once
#include "count_request.h"
#include <map>
#include <vector>

namespace counters {

struct Event {    // of one lane
    uintptr_t at;      // the address; of a STEP, the number of its block in the graph
    uint32_t site;     // from the start of the library
    uint16_t depth;    // of the stack, in steps of 16 bytes: a call is deeper than its caller
    uint16_t what : 3, shared : 1, size : 12;
    bool joins(const Event& e) const {
        return site == e.site && depth == e.depth && what == e.what && shared == e.shared && size == e.size;
    }
    // of accesses in one block
    bool before(const Event& e) const { return depth != e.depth ? depth > e.depth : site < e.site; }
};
using Trace = std::vector<Event>;

// The block of the kernel that a lane is in, that of the function which it calls from there, and so on
struct Position {
    std::vector<Event> block;
    // Goes on to an event. leaves(a, b): from block a to b, or, where b is null, out of a's function
    template <class F> void follow(const Event& e, F leaves) {
        for (; !block.empty() && block.back().depth > e.depth; block.pop_back()) leaves(block.back(), nullptr);
        if (e.what != STEP) return;
        if (!block.empty() && block.back().depth == e.depth) leaves(block.back(), &e), block.back() = e;
        else block.push_back(e);
    }
    void follow(const Event& e) {
        follow(e, [](const Event&, const Event*) {});
    }
};

class Graph {
    std::map<std::pair<uint32_t, uint16_t>, int> numbers;    // of blocks, by site and depth
    std::vector<std::vector<int>> after = {{}}, before = {{}};
    void edge(int from, int to) {
        if (std::find(after[from].begin(), after[from].end(), to) != after[from].end()) return;
        after[from].push_back(to), before[to].push_back(from);
    }

public:
    static constexpr int EXIT = 0;    // out of the function
    int number(const Event& block) {
        auto [found, fresh] = numbers.try_emplace({block.site, block.depth}, int(after.size()));
        if (fresh) after.push_back({}), before.push_back({});
        return found->second;
    }
    void add(Trace& trace, Position position) {
        auto leaves = [this](const Event& a, const Event* b) { edge(number(a), b ? number(*b) : EXIT); };
        for (Event& e : trace) {
            if (e.what == STEP) e.at = uintptr_t(number(e));
            position.follow(e, leaves);
        }
        for (const Event& e : position.block) edge(number(e), EXIT);
    }
    // Of each block the one that all ways from it lead through first (Cooper, Harvey, Kennedy 2001, on reversed edges)
    std::vector<int> meetings() const {
        std::vector<int> rank(after.size(), -1), order, meeting(after.size(), -1);
        std::vector<std::pair<int, size_t>> path = {{EXIT, 0}};
        std::vector<bool> seen(after.size());
        for (seen[EXIT] = true; !path.empty();) {
            int b = path.back().first;
            if (path.back().second == before[b].size()) {
                rank[b] = int(order.size()), order.push_back(b), path.pop_back();
                continue;
            }
            int a = before[b][path.back().second++];
            if (!seen[a]) seen[a] = true, path.push_back({a, 0});
        }
        meeting[EXIT] = EXIT;
        for (bool changed = true; changed;) {
            changed = false;
            for (size_t i = order.size() - 1; i-- > 0;) {
                int b = order[i], m = -1;
                for (int a : after[b]) {
                    if (meeting[a] < 0) continue;
                    if (m < 0) m = a;
                    while (m != a) (rank[m] < rank[a] ? m : a) = meeting[rank[m] < rank[a] ? m : a];
                }
                if (meeting[b] != m) meeting[b] = m, changed = true;
            }
        }
        return meeting;
    }
};

// The events of 32 lanes, as a warp executes them. Calls counters.step(block, lanes), counters.request(first, Request),
// and counters.part(block) where lanes go different ways behind a block.
template <class Counters> class Replay {
    Counters& counters;
    Trace* trace;
    Position* position;
    Graph graph;
    std::vector<int> meeting;
    size_t next[32] = {};

    const Event* event(int l) const { return next[l] < trace[l].size() ? &trace[l][next[l]] : nullptr; }

    void together(const Event first, uint32_t lanes) {    // those of the lanes whose next event joins the first
        Request request = {What(first.what), bool(first.shared), first.size, 0, {}};
        for (int l = 0; l < 32; l++)
            if (lanes >> l & 1 && event(l)->joins(first)) {
                request.active |= 1u << l, request.at[l] = event(l)->at;
                position[l].follow(*event(l)), next[l]++;
            }
        if (first.what == STEP) counters.step(first, request.active);
        else counters.request(first, request);
    }

    void part(uint32_t lanes, int deepest) {    // all are before a block, and not before the same
        std::vector<Event> blocks = position[__builtin_ctz(lanes)].block;
        while (!blocks.empty() && blocks.back().depth > deepest) blocks.pop_back();
        int stop = Graph::EXIT, depth = 0;
        if (!blocks.empty()) {
            stop = meeting[size_t(graph.number(blocks.back()))], depth = blocks.back().depth;
            counters.part(blocks.back());
        }
        while (lanes) {
            const Event first = *event(__builtin_ctz(lanes));
            uint32_t same = 0;
            for (int l = 0; l < 32; l++)
                if (lanes >> l & 1 && event(l)->joins(first)) same |= 1u << l;
            lanes &= ~same;
            run(same, stop, depth);
        }
    }

    // Runs each lane until it is before the block `stop`; for EXIT, until it is back from the function of this depth
    void run(uint32_t lanes, int stop, int depth) {
        uint32_t group = 0;    // the lanes that ran the last block together
        for (Event block = {};;) {
            const Event *access = nullptr, *step = nullptr;
            uint32_t running = 0, stopped = 0, in_block = 0;    // in_block: with an access before the next block
            bool differ = false;
            int deepest = 0;
            for (int l = 0; l < 32; l++) {
                const Event* e = lanes >> l & 1 ? event(l) : nullptr;
                if (!e) continue;
                if (stop == Graph::EXIT ? e->depth < depth : e->what == STEP && e->at == uintptr_t(stop)) {
                    stopped |= 1u << l;
                    continue;
                }
                running |= 1u << l, deepest = std::max(deepest, int(e->depth));
                if (e->what != STEP) {
                    in_block |= 1u << l;
                    if (!access || e->before(*access)) access = e;
                } else if (!step) step = e;
                else if (!e->joins(*step)) differ = true;
            }
            if (!running) return;
            if (access) together(*access, in_block);
            else if (differ) part(running, deepest), group = 0;
            else {
                if (group & stopped) counters.part(block);
                block = *step, group = running;
                together(*step, running);
            }
        }
    }

    bool all_the_same() const {
        const Trace* first = nullptr;
        for (int l = 0; l < 32; l++) {
            if (trace[l].empty()) continue;
            if (!first) first = &trace[l];
            if (trace[l].size() != first->size()) return false;
            for (size_t i = 0; i < first->size(); i++)
                if (!trace[l][i].joins((*first)[i])) return false;
        }
        return true;
    }

public:
    // trace[l] and position[l] belong to lane l. Ends with empty traces
    Replay(Counters& counters, Trace* trace, Position* position)
        : counters(counters), trace(trace), position(position) {
        if (!all_the_same()) {
            for (int l = 0; l < 32; l++)
                if (!trace[l].empty()) graph.add(trace[l], position[l]);
            meeting = graph.meetings();
        }
        run(0xffffffffu, Graph::EXIT, 0);
        for (int l = 0; l < 32; l++) trace[l].clear();
    }
};

}    // namespace counters
