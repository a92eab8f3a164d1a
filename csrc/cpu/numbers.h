// The four number types of csrc/gpu.h, by their codes: 0 float32, 1 float16, 2 bfloat16, 3 float64.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

struct float16 {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};

inline float from_bits(uint32_t bits) {
    float v;
    std::memcpy(&v, &bits, 4);
    return v;
}
inline double to_double(double v) { return v; }
inline double to_double(float v) { return v; }
inline double to_double(bfloat16 v) { return from_bits(uint32_t(v.bits) << 16); }
inline double to_double(float16 v) {
    uint32_t sign = uint32_t(v.bits & 0x8000) << 16, rest = uint32_t(v.bits & 0x7fff) << 13;
    // moves the exponent's bias from 15 to 127, subnormals included
    float finite = from_bits(rest | sign) * 0x1p112f;
    return rest >= 0x0f800000 ? from_bits(rest | sign | 0x7f800000) : finite;
}

// f(zero of the type)
template <class F> void with_dtype(int dtype, F f) {
    if (dtype == 0) f(float());
    if (dtype == 1) f(float16());
    if (dtype == 2) f(bfloat16());
    if (dtype == 3) f(double());
}

// f(zero of the type) -> 0, or 1 for another type, as native kernels say of a bad argument
template <class F> int with_float_or_double(int dtype, F f) {
    if (dtype == 0) return f(float()), 0;
    if (dtype == 3) return f(double()), 0;
    return 1;
}

}    // namespace
