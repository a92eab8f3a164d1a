// How a pixel of several levels is drawn, on a GPU and on a CPU.
// Rooms: kernels/made_sample.py, kernels/pixelcnn_sample.py
#pragma once
#include <cstdint>
#include <math.h>    // declares exp of a float beside that of a double; <cmath> alone leaves only the latter here
#if defined(__CUDACC__)
#define EITHER __host__ __device__    // GPU kernels and CPU kernels call these functions
#else
#define EITHER
#endif

namespace {

static_assert(sizeof(exp(0.0f)) == sizeof(float), "float numbers are drawn in float, on every backend");

// How many of P(x <= 0), ..., P(x <= L-2) are at most u. L = 2: of a sigmoid of l[0]; else of a softmax of l
template <class T> EITHER int64_t drawn_level(const T* l, T u, int64_t L) {
    if (L == 2) return u >= T(1) / (T(1) + exp(l[0]));
    T top = l[0], total = 0, below = 0;
    int64_t level = 0;
    for (int64_t k = 1; k < L; k++) top = l[k] > top ? l[k] : top;
    for (int64_t k = 0; k < L; k++) total += exp(l[k] - top);
    for (int64_t k = 0; k < L - 1; k++) {
        below += exp(l[k] - top) / total;    // P(x <= k)
        level += u >= below;
    }
    return level;
}

}    // namespace
