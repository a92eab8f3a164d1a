// How to write a native CPU kernel: one source, compiled for three instruction sets, run by the threads that the caller
// grants.
//
// The source has three parts. This header reads it again for each instruction set, and then it sees part 2 alone.
//
//   // csrc/scale.cpp: y = factor x
//   #ifndef SET    // ---- 1. what the instruction sets share: the problem
//   #include "cpu/threads.h"
//   namespace {
//   template <class T> struct Scale {
//       const T* x;    // (N, D)
//       T* y;          // (N, D)
//       T factor;
//       int64_t N, D;
//   };
//   }    // namespace
//   #define EACH_SET "../scale.cpp"    // this very file, seen from csrc/cpu/
//   #include "cpu/each_set.h"
//   #endif
//
//   #ifdef SET    // ---- 2. the arithmetic, once for each instruction set, by the functions of csrc/cpu/vectors.h
//   template <class T> static void scale_row(const Scale<T>& p, int64_t n) {
//       each_vector<T>(p.D, [&](int64_t d, int64_t count) {    // `count` of the lanes hold numbers of this row
//           store(p.y + n * p.D + d, p.factor * load(p.x + n * p.D + d, count), count);
//       });
//   }
//   #else    // ---- 3. the tasks, and the C function that Python calls
//   extern "C" int scale_cpu(const void* x, void* y, double factor, int64_t N, int64_t D, int threads) {
//       Scale<float> p = {(const float*)x, (float*)y, float(factor), N, D};
//       auto row = BEST(scale_row<float>);    // of the widest instruction set that this processor has
//       parallel(N, threads, [&](int64_t n, int) { row(p, n); });
//       return 0;
//   }
//   #endif
//
// GENMINI_CPU=avx512, avx2 or portable chooses the instruction set, where the processor has it. Standard headers belong
// to part 1: in part 2 they would be compiled for one instruction set and might be linked for all. A header whose
// functions need instructions beyond those below names their feature in AVX512_ALSO before this header is read, and
// enables them in part 2 (integers.h does). csrc/build.py needs to know nothing of this.
//
// Results do not depend on the number of threads where each task writes its own numbers. They may depend on the
// instruction set, which decides how many partial sums a sum has (`total`).
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#define PORTABLE 0    // what every compiler makes of vectors of 16 bytes
#define AVX2 1        // and FMA
#define AVX512 2      // F, BW, DQ and VL

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(ONLY_PORTABLE)
#define WIDE_X86 1    // g++ compiles functions for an instruction set other than its own target
#include <immintrin.h>
#endif
#ifndef AVX512_ALSO
#define AVX512_ALSO "avx512f"
#endif

namespace {

namespace portable {
#define SET PORTABLE
#include "vectors.h"
#ifdef EACH_SET
#include EACH_SET
#endif
#undef SET
}    // namespace portable

#ifdef WIDE_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define SET AVX2
#include "vectors.h"
#ifdef EACH_SET
#include EACH_SET
#endif
#undef SET
}    // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
namespace avx512 {
#define SET AVX512
#include "vectors.h"
#ifdef EACH_SET
#include EACH_SET
#endif
#undef SET
}    // namespace avx512
#pragma GCC pop_options

// The widest set that this processor has, or the one that GENMINI_CPU names, if the processor has it. BEST(f<T>) is the
// function of that set. A call of a kernel asks once, as the environment may change meanwhile: if it needs several
// functions or constants of the set, it keeps the set, and OF_SET(set, f<T>) is each
inline int instruction_set() {
    const char* name = std::getenv("GENMINI_CPU");
    auto may_be = [&](const char* set) { return !name || !*name || std::strcmp(name, set) == 0; };
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (may_be("avx512") && avx512 && __builtin_cpu_supports(AVX512_ALSO)) return AVX512;
    if (may_be("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
    return PORTABLE;
}

#define OF_SET(set, ...)                                                       \
    ((set) == AVX512 ? avx512::__VA_ARGS__ : (set) == AVX2 ? avx2::__VA_ARGS__ \
                                                           : portable::__VA_ARGS__)
#else
inline int instruction_set() { return PORTABLE; }
#define OF_SET(set, ...) ((set) == PORTABLE ? portable::__VA_ARGS__ : portable::__VA_ARGS__)
#endif
inline const char* name_of(int set) {
    if (set == AVX512) return "avx512";
    return set == AVX2 ? "avx2" : "portable";
}
#define BEST(...) OF_SET(instruction_set(), __VA_ARGS__)

}    // namespace
