// Small kernels, each with one planted bug, and the same kernels without it:  planted NAME bug|right
//
// Exit status 0: the result is right. 1: it is wrong. 2: the launch failed. Any other: a sanitizer reported.
// The first line of each file names the build that must find its bug, for csrc/sanitize.py.
#include "../driver.h"
namespace {
#include "barrier_missing_in_a_reduction.cu"
#include "barrier_missing_in_a_tile_loop.cu"
#include "barrier_replaced_by_a_shuffle.cu"
#include "blocks_same_answer.cu"
#include "blocks_write_one_cell.cu"
#include "copy_read_before_its_wait.cu"
#include "copy_source_overwritten.cu"
#include "copy_stage_refilled_too_early.cu"
#include "copy_wait_without_barrier.cu"
#include "dead_lock.cu"
#include "different_barriers.cu"
#include "fence_missing.cu"
#include "global_read_out_of_bounds.cu"
#include "global_uninitialised.cu"
#include "global_write_out_of_bounds.cu"
#include "host_pointer.cu"
#include "host_pointer_in_a_struct.cu"
#include "integer_overflow.cu"
#include "intrinsic_too_exact.cu"
#include "launch_bounds_exceeded.cu"
#include "misaligned_shared_vector.cu"
#include "misaligned_wide_load.cu"
#include "shared_dynamic_out_of_bounds.cu"
#include "shared_static_out_of_bounds.cu"
#include "shared_uninitialised.cu"
#include "shuffle_in_two_branches.cu"
#include "spin_without_end.cu"
#include "stale_read_only_load.cu"
#include "static_plus_dynamic_shared.cu"
#include "uninitialised_absorbed.cu"
#include "unsigned_overflow.cu"
#include "warp_barrier_missing_in_shared_reduction.cu"
#include "warp_not_synchronised.cu"

#define NAMED(name) {#name, name<false>, name<true>}
struct {
    const char* name;
    void (*right)();
    void (*bug)();
} kernels[] = {NAMED(barrier_missing_in_a_reduction),
               NAMED(barrier_missing_in_a_tile_loop),
               NAMED(barrier_replaced_by_a_shuffle),
               NAMED(blocks_same_answer),
               NAMED(blocks_write_one_cell),
               NAMED(copy_read_before_its_wait),
               NAMED(copy_source_overwritten),
               NAMED(copy_stage_refilled_too_early),
               NAMED(copy_wait_without_barrier),
               NAMED(dead_lock),
               NAMED(different_barriers),
               NAMED(fence_missing),
               NAMED(global_read_out_of_bounds),
               NAMED(global_uninitialised),
               NAMED(global_write_out_of_bounds),
               NAMED(host_pointer),
               NAMED(host_pointer_in_a_struct),
               NAMED(integer_overflow),
               NAMED(intrinsic_too_exact),
               NAMED(launch_bounds_exceeded),
               NAMED(misaligned_shared_vector),
               NAMED(misaligned_wide_load),
               NAMED(shared_dynamic_out_of_bounds),
               NAMED(shared_static_out_of_bounds),
               NAMED(shared_uninitialised),
               NAMED(shuffle_in_two_branches),
               NAMED(spin_without_end),
               NAMED(stale_read_only_load),
               NAMED(static_plus_dynamic_shared),
               NAMED(uninitialised_absorbed),
               NAMED(unsigned_overflow),
               NAMED(warp_barrier_missing_in_shared_reduction),
               NAMED(warp_not_synchronised)};
}    // namespace

int main(int count, char** arguments) {
    for (auto& one : kernels)
        if (count == 3 && one.name == std::string(arguments[1])) {
            std::string which = arguments[2];
            which == "bug" ? one.bug() : one.right();
            stop(0, "%s: the result is right", one.name);
        }
    stop(3, "planted NAME bug|right");
}
