// Functions that a GPU computes fast and less exactly than the standard library. Each has here the largest error that
// the CUDA C++ Programming Guide names ("Intrinsic Functions"; rsqrtf: "Standard Functions"): too large where threads
// run forward, too small in reverse, else by the bits of the argument. A kernel that needs more exactness fails in one
// of the orders. All are "tests only" so far: a planted bug and tests/kernels/test_emulator.cu alone call them.
#pragma once
#include <algorithm>
#include <cfloat>
#include <cmath>
#include "block.h"

namespace emulator {
// The float at most `ulps` units in the last place and `absolute` from `exact`, and farthest in the direction of the
// order; v: an argument
static inline float with_error(double exact, double ulps, double absolute, float v) {
    float nearest = float(exact);
    if (!(fabs(exact) > 0) || nearest - nearest != 0) return nearest;    // zero, infinite or NaN
    int exponent;
    frexp(exact, &exponent);    // 2^(exponent - 1) <= |exact|
    double error = std::max(ulps * ldexp(1.0, std::max(exponent, -125) - 24), absolute);
    int order = self ? block->launch->order : FORWARD;
    bool larger = order == FORWARD || (order == RANDOM && same_bits<uint32_t>(v) * 2654435761u >> 31);
    double end = larger ? exact + error : exact - error;
    float f = float(end);
    return fabs(double(f) - exact) > error ? nextafterf(f, nearest) : f;
}
static inline bool from_half_to_two(float v) { return v >= 0.5f && v <= 2; }
static inline float fast_exp(float v) {
    return emulator::with_error(exp(double(v)), 2 + floor(fabs(1.173 * v)), 0, v);
}
static inline float fast_exp10(float v) {
    return emulator::with_error(pow(10.0, double(v)), 2 + floor(fabs(2.97 * v)), 0, v);
}
static inline float fast_log(float v) {
    bool near = emulator::from_half_to_two(v);
    return emulator::with_error(log(double(v)), near ? 0 : 3, near ? exp2(-21.41) : 0, v);
}
static inline float fast_log2(float v) {
    bool near = emulator::from_half_to_two(v);
    return emulator::with_error(log2(double(v)), near ? 0 : 2, near ? exp2(-22.0) : 0, v);
}
static inline float fast_log10(float v) {
    bool near = emulator::from_half_to_two(v);
    return emulator::with_error(log10(double(v)), near ? 0 : 3, near ? exp2(-24.0) : 0, v);
}
// Beyond [-pi, pi] the guide says only that the error is larger. Here it grows with the argument
static inline float fast_sin(float v) {
    return emulator::with_error(sin(double(v)), 0, exp2(-21.41) * std::max(1.0, fabs(double(v)) / M_PI), v);
}
static inline float fast_cos(float v) {
    return emulator::with_error(cos(double(v)), 0, exp2(-21.19) * std::max(1.0, fabs(double(v)) / M_PI), v);
}
static inline float fast_pow(float v, float power) {    // as the guide computes it; exp2f errs by 2 units
    float exponent = power * fast_log2(v);
    return emulator::with_error(exp2(double(exponent)), 2, 0, exponent);
}
}    // namespace emulator

// glibc has declared functions of these names
#define __expf emulator::fast_exp
#define __exp10f emulator::fast_exp10
#define __logf emulator::fast_log
#define __log2f emulator::fast_log2
#define __log10f emulator::fast_log10
#define __sinf emulator::fast_sin
#define __cosf emulator::fast_cos
#define __powf emulator::fast_pow
static inline float __fdividef(float a, float b) {
    if (fabsf(b) > 0x1p126f && fabsf(b) <= FLT_MAX) return a * 0.0f;
    return emulator::with_error(double(a) / double(b), 2, 0, a);
}
static inline float rsqrtf(float v) { return emulator::with_error(1 / sqrt(double(v)), 2, 0, v); }
