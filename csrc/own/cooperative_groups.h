// The groups of CUDA that lie within a block, under g++: thread_block, tiles of a warp, the lanes that are active.
// Groups of several blocks are not here: the emulator runs one block after the other, so that none can wait for the
// next.
#pragma once
#include "cuda_runtime.h"

namespace cooperative_groups {
struct thread_block {
    void sync(EMULATOR_PLACE) const { __syncthreads(file, line); }
    unsigned thread_rank() const { return unsigned(emulator::self->number); }
    unsigned size() const { return blockDim.x * blockDim.y * blockDim.z; }
    unsigned num_threads() const { return size(); }
    dim3 group_index() const { return dim3(blockIdx.x, blockIdx.y, blockIdx.z); }
    dim3 thread_index() const { return dim3(threadIdx.x, threadIdx.y, threadIdx.z); }
    dim3 group_dim() const { return blockDim; }
};
inline thread_block this_thread_block() { return {}; }

namespace lanes {    // of a warp, that stand in `mask`
struct group {
    uint32_t mask;
    unsigned size() const { return unsigned(__builtin_popcount(mask)); }
    unsigned num_threads() const { return size(); }
    unsigned thread_rank() const { return unsigned(__builtin_popcount(mask & ((1u << emulator::lane()) - 1))); }
    int lane_of(unsigned rank) const {    // -1 if there is none
        for (int l = 0; l < 32; l++)
            if (mask >> l & 1 && rank-- == 0) return l;
        return -1;
    }
    template <class T> T from(int lane, T v, const char* file, int line) const {
        return __shfl_sync(mask, v, lane < 0 ? emulator::lane() : lane, 32, file, line);
    }
    void sync(EMULATOR_PLACE) const { __syncwarp(mask, file, line); }
    template <class T> T shfl(T v, unsigned rank, EMULATOR_PLACE) const {
        return from(lane_of(rank % size()), v, file, line);
    }
    template <class T> T shfl_down(T v, unsigned by, EMULATOR_PLACE) const {
        return from(lane_of(thread_rank() + by), v, file, line);
    }
    template <class T> T shfl_up(T v, unsigned by, EMULATOR_PLACE) const {
        return from(by > thread_rank() ? -1 : lane_of(thread_rank() - by), v, file, line);
    }
    template <class T> T shfl_xor(T v, unsigned bits, EMULATOR_PLACE) const {
        return from(lane_of(thread_rank() ^ bits), v, file, line);
    }
    int any(int p, EMULATOR_PLACE) const { return __any_sync(mask, p, file, line); }
    int all(int p, EMULATOR_PLACE) const { return __all_sync(mask, p, file, line); }
    unsigned ballot(int p, EMULATOR_PLACE) const {    // a bit for each rank
        unsigned of_lanes = __ballot_sync(mask, p, file, line), bits = 0;
        for (unsigned rank = 0; rank < size(); rank++) bits |= (of_lanes >> lane_of(rank) & 1) << rank;
        return bits;
    }
};
}    // namespace lanes

template <unsigned SIZE, class Of = thread_block> struct thread_block_tile : lanes::group {
    static_assert(SIZE <= 32 && (SIZE & (SIZE - 1)) == 0, "a tile has 1, 2, 4, 8, 16 or 32 threads");
    thread_block_tile() : group{uint32_t((uint64_t(1) << SIZE) - 1) << (unsigned(emulator::lane()) / SIZE * SIZE)} {}
    unsigned meta_group_rank() const { return unsigned(emulator::self->number) / SIZE; }
    unsigned meta_group_size() const { return (thread_block().size() + SIZE - 1) / SIZE; }
};
template <unsigned SIZE, class Of> thread_block_tile<SIZE, Of> tiled_partition(const Of&) { return {}; }

struct coalesced_group : lanes::group {};
inline coalesced_group coalesced_threads(EMULATOR_PLACE) { return {{__activemask(file, line)}}; }

template <class Group> void sync(const Group& group, EMULATOR_PLACE) { group.sync(file, line); }
}    // namespace cooperative_groups
