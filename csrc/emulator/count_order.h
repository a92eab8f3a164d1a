// What orders the accesses of a launch: whether one of them comes before what a thread does now, on every GPU.
//
//   a thread              does one thing after the other
//   barriers of a block   begin an epoch: what was before is ordered before all that the block does later
//   __syncwarp            advances a clock of each lane. A lane knows how far the clocks of the others were when they
//                         last met, directly or through others
//   __threadfence and     a write, a fence, an atomic operation, and in another thread an atomic operation at the same
//   atomic operations     address, a fence, a read: the write is before the read. Barriers may stand between these,
//                         and another thread on their other side. Nothing else orders two blocks: where one of the
//                         two fences is __threadfence_block, both threads must be of one block. Who is behind a fence
//                         passes on by the next one what others passed on to it
//
// Shuffles, votes and ldmatrix order no memory, and neither does an atomic operation alone. The emulator runs one block
// after the other, so that an atomic operation sees all that were made before at its address.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <unordered_map>
#include <vector>

namespace counters {

struct Moment {    // of an access: the epochs of all launches have different numbers
    uint32_t epoch, clock;
    int thread;    // of its block
};

class Order {
    struct Block {
        uint32_t first_epoch;
        int64_t index;
    };
    struct Fence {    // what its thread knew of its own block
        uint32_t first_epoch, epoch;
        int warp;
        uint32_t clock[32];
    };
    using Fences = std::shared_ptr<const std::vector<int>>;    // ascending numbers; null: none
    uint32_t epoch = 0, launch = 0, clock[1024][32] = {};    // [t][m]: how far lane m of its warp had come, as t knows
    bool clocks_run = false;
    std::vector<Block> blocks = {{0, 0}};    // of this launch, in the order in which they ran
    std::vector<Fence> fences;
    // Of each thread: the fences that it is behind; those that it will be behind after its next __threadfence; those
    // after any fence; and those that an atomic operation of it leaves to the next one at the same address, in its
    // block and in later ones
    Fences behind[1024], met[1024], met_here[1024], told[1024], told_far[1024];
    int own[1024] = {}, own_far[1024] = {};    // and its last fence, its last __threadfence, + 1, until others share it
    struct Left {    // at an address: by the blocks before; by this block, to it and to later ones
        Fences before, here, far;
        uint32_t first_epoch;    // of this block
    };
    std::unordered_map<uintptr_t, Left> left[2];    // in global memory; in shared memory, until the block ends

    struct Sum {
        Fences all, more, both;
    } sums[8];    // the last ones: the next thread of the block mostly wants the same
    unsigned oldest = 0;
    void add(Fences& all, const Fences& more) {
        if (!more || all == more) return;
        for (const Sum& sum : sums)
            if (all && all == sum.all && more == sum.more) {
                all = sum.both;
                return;
            }
        auto both = std::make_shared<std::vector<int>>();
        if (all) std::set_union(all->begin(), all->end(), more->begin(), more->end(), std::back_inserter(*both));
        if (all) sums[oldest++ % 8] = {all, more, both}, all = both;
        else all = more;
    }
    // Threads that meet learn from each other
    void join(Fences (&of)[1024], int first, uint32_t lanes, int count) {
        Fences joint;
        for (int t = first; t < first + count; t++)
            if (count > 32 || lanes >> (t - first) & 1) add(joint, of[t]);
        for (int t = first; t < first + count; t++)
            if (count > 32 || lanes >> (t - first) & 1) of[t] = joint;
    }
    void join_all(int first, uint32_t lanes, int count) {
        if (fences.empty()) return;
        share(own, told, first, lanes, count), share(own_far, told_far, first, lanes, count);
        for (auto* of : {&behind, &met, &met_here, &told, &told_far}) join(*of, first, lanes, count);
    }
    void share(int (&last)[1024], Fences (&of)[1024], int first, uint32_t lanes, int count) {
        auto fresh = std::make_shared<std::vector<int>>();
        for (int t = first; t < first + count; t++)
            if ((count > 32 || lanes >> (t - first) & 1) && last[t]) fresh->push_back(last[t] - 1), last[t] = 0;
        std::sort(fresh->begin(), fresh->end());
        if (!fresh->empty()) add(of[first + (count > 32 ? 0 : __builtin_ctz(lanes))], fresh);
    }
    void threads_begin() {
        if (clocks_run) memset(clock, 0, sizeof clock), clocks_run = false;
        if (!fences.empty())
            for (int t = 0; t < 1024; t++) {
                for (auto* of : {&behind, &met, &met_here, &told, &told_far}) (*of)[t] = nullptr;
                own[t] = own_far[t] = 0;
            }
    }
    bool behind_a_fence_after(const Moment& a, int thread) const {
        if (!behind[thread]) return false;
        auto earlier = [this](int number, uint32_t e) { return fences[size_t(number)].epoch < e; };
        auto i = std::lower_bound(behind[thread]->begin(), behind[thread]->end(), a.epoch, earlier);
        for (; i != behind[thread]->end(); i++) {    // of the block of a and not before it, then of later ones
            const Fence& f = fences[size_t(*i)];
            if (a.epoch < f.first_epoch) return false;
            if (a.epoch < f.epoch || (a.thread / 32 == f.warp && f.clock[a.thread % 32] > a.clock)) return true;
        }
        return false;
    }

public:
    void launch_begins() {
        threads_begin();
        launch = ++epoch, blocks.clear(), fences.clear(), left[0].clear();
    }
    void block_begins(int64_t index) {
        threads_begin();
        blocks.push_back({++epoch, index}), left[1].clear();
    }
    void barrier() { epoch++, join_all(0, 0, 1024); }
    void warp_meets(int warp, uint32_t lanes) {
        uint32_t joint[32] = {};
        for (int l = 0; l < 32; l++)
            for (int m = 0; m < 32; m++)
                if (lanes >> l & 1) joint[m] = std::max(joint[m], clock[32 * warp + l][m] + (l == m));
        for (int l = 0; l < 32; l++)
            if (lanes >> l & 1) memcpy(clock[32 * warp + l], joint, sizeof joint);
        clocks_run = true, join_all(32 * warp, lanes, 32);
    }
    void fence(int thread, bool of_block) {
        clock[thread][thread % 32]++, clocks_run = true;
        add(behind[thread], met_here[thread]), met_here[thread] = nullptr;
        if (!of_block) add(behind[thread], met[thread]), met[thread] = nullptr;
        Fence f = {blocks.back().first_epoch, epoch, thread / 32, {}};
        memcpy(f.clock, clock[thread], sizeof f.clock);
        add(told[thread], behind[thread]);
        fences.push_back(f), own[thread] = int(fences.size());
        if (!of_block) add(told_far[thread], behind[thread]), own_far[thread] = own[thread];
    }
    void atomic(int thread, uintptr_t at, bool shared) {
        if (fences.empty()) return;
        Left& l = left[shared][at];
        if (l.first_epoch != blocks.back().first_epoch)
            add(l.before, l.far), l.here = l.far = nullptr, l.first_epoch = blocks.back().first_epoch;
        add(met[thread], l.before), add(met_here[thread], l.here);
        add(l.here, told[thread]), add(l.far, told_far[thread]);
        if (own[thread]) add(l.here, std::make_shared<std::vector<int>>(1, own[thread] - 1));
        if (own_far[thread]) add(l.far, std::make_shared<std::vector<int>>(1, own_far[thread] - 1));
    }

    Moment now(int thread) const { return {epoch, clock[thread][thread % 32], thread}; }
    bool of_this_launch(uint32_t e) const { return e > launch; }
    bool of_this_block(const Moment& a) const { return a.epoch >= blocks.back().first_epoch; }
    int64_t block_of(const Moment& a) const {
        auto later = [](uint32_t e, const Block& b) { return e < b.first_epoch; };
        return (std::upper_bound(blocks.begin(), blocks.end(), a.epoch, later) - 1)->index;
    }
    // Whether access a is before what this thread of the block that runs does now
    bool before(const Moment& a, int thread) const {
        if (of_this_block(a)) {
            if (a.thread == thread || a.epoch < epoch) return true;
            if (a.thread / 32 == thread / 32 && clock[thread][a.thread % 32] > a.clock) return true;
        }
        return !fences.empty() && behind_a_fence_after(a, thread);
    }
};

}    // namespace counters
