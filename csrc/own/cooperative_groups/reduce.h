// Reductions of the groups in cooperative_groups.h: all lanes get the result.
#pragma once
#include "../cooperative_groups.h"

namespace cooperative_groups {
template <class T> struct plus {
    T operator()(T a, T b) const { return a + b; }
};
template <class T> struct greater {    // the larger one
    T operator()(T a, T b) const { return a > b ? a : b; }
};
template <class T> struct less {
    T operator()(T a, T b) const { return a < b ? a : b; }
};
template <class Group, class T, class F> T reduce(const Group& group, T v, F f, EMULATOR_PLACE) {
    unsigned n = group.size();
    if (n & (n - 1)) {
        T sum = group.shfl(v, 0, file, line);
        for (unsigned rank = 1; rank < n; rank++) sum = f(sum, group.shfl(v, rank, file, line));
        return sum;
    }
    for (unsigned bits = n / 2; bits; bits /= 2) v = f(v, group.shfl_xor(v, bits, file, line));
    return v;
}
}    // namespace cooperative_groups
