// Small kernels, each with one planted bug, and the same kernels without it:  planted NAME bug|right
//
// Exit status 0: the result is right. 1: it is wrong. 2: the launch failed. Any other: a sanitizer reported.
// The first line of each file names the build that must find its bug, for csrc/sanitize.py.
#include "../driver.h"
namespace {
#include "barrier_missing_in_a_reduction.cu"
#include "barrier_missing_in_a_tile_loop.cu"
#include "barrier_replaced_by_a_shuffle.cu"
#include "blocks_write_one_cell.cu"
#include "copy_read_before_its_wait.cu"
#include "copy_source_overwritten.cu"
#include "dead_lock.cu"
#include "different_barriers.cu"
#include "global_read_out_of_bounds.cu"
#include "global_write_out_of_bounds.cu"
#include "host_pointer.cu"
#include "host_pointer_in_a_struct.cu"
#include "integer_overflow.cu"
#include "intrinsic_too_exact.cu"
#include "launch_bounds_exceeded.cu"
#include "misaligned_wide_load.cu"
#include "shared_dynamic_out_of_bounds.cu"
#include "shared_static_out_of_bounds.cu"
#include "shared_uninitialised.cu"
#include "shuffle_in_two_branches.cu"
#include "spin_without_end.cu"
#include "static_plus_dynamic_shared.cu"
#include "unsigned_overflow.cu"
#include "warp_not_synchronised.cu"

#define NAMED(name) {#name, name<false>, name<true>}
struct {
    const char* name;
    void (*right)();
    void (*bug)();
} kernels[] = {NAMED(barrier_missing_in_a_reduction),
               NAMED(barrier_missing_in_a_tile_loop),
               NAMED(barrier_replaced_by_a_shuffle),
               NAMED(blocks_write_one_cell),
               NAMED(copy_read_before_its_wait),
               NAMED(copy_source_overwritten),
               NAMED(dead_lock),
               NAMED(different_barriers),
               NAMED(global_read_out_of_bounds),
               NAMED(global_write_out_of_bounds),
               NAMED(host_pointer),
               NAMED(host_pointer_in_a_struct),
               NAMED(integer_overflow),
               NAMED(intrinsic_too_exact),
               NAMED(launch_bounds_exceeded),
               NAMED(misaligned_wide_load),
               NAMED(shared_dynamic_out_of_bounds),
               NAMED(shared_static_out_of_bounds),
               NAMED(shared_uninitialised),
               NAMED(shuffle_in_two_branches),
               NAMED(spin_without_end),
               NAMED(static_plus_dynamic_shared),
               NAMED(unsigned_overflow),
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
