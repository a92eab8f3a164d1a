// What csrc/made_sample.cu and .cpp share: the layers and the sizes of a call. Room: kernels/made_sample.py
#pragma once
#include <cstdint>

namespace {

// kernels/made_sample.py writes the same fields in the same order, 8 bytes each
template <class T> struct Layer {    // a hidden one, V, or A
    const T *W, *b;            // b may be null, W of A too
    const int64_t* degrees;    // of the units, ascending; null for V and A
    int64_t K;                 // numbers in a row of W
};
struct Sizes {
    int64_t known, I, L, N, D, units;    // I hidden layers; L levels; units of all layers, inputs too
};

}    // namespace
