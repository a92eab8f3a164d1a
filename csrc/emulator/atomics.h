// CUDA's atomic operations. They are indivisible, order no other memory ("relaxed"), and return the value from before.
// What no kernel uses yet is marked "tests only": tests/kernels/test_emulator.cu or a planted bug alone runs it.
#pragma once
#include "block.h"

namespace emulator {
template <class T, class F> T atomic_update(T* p, F f) {
    spin();
    using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
    typedef Bits __attribute__((may_alias)) Word;
    Bits old = __atomic_load_n((Word*)p, __ATOMIC_RELAXED);
    for (;;) {
        Bits fresh = same_bits<Bits>(f(same_bits<T>(old)));
        if (__atomic_compare_exchange_n((Word*)p, &old, fresh, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return same_bits<T>(old);
    }
}
template <class T, class... Known> constexpr bool one_of = (std::is_same_v<T, Known> || ...);
template <class T> struct same {    // so that the other arguments convert to the type of the first
    using type = T;
};
template <class T> T plus(T a, T b) { return a + b; }
static inline int plus(int a, int b) { return int(unsigned(a) + unsigned(b)); }    // wraps around, as on a GPU
}    // namespace emulator
#define ATOMIC(name, result, ...)                                                               \
    template <class T> COUNTED_CALL T name(T* p, typename emulator::same<T>::type v) {          \
        static_assert(emulator::one_of<T, __VA_ARGS__>, "a GPU has no " #name " of this type"); \
        COUNTED(atomic(#name, __builtin_return_address(0), p, sizeof *p));                      \
        return emulator::atomic_update(p, [v](T old) -> T { return result; });                  \
    }
ATOMIC(atomicAdd, emulator::plus(old, v), int, unsigned, unsigned long long, float, double)
ATOMIC(atomicSub, T(unsigned(old) - unsigned(v)), int, unsigned)    // tests only
ATOMIC(atomicMin, v < old ? v : old, int, unsigned, unsigned long long, long long)
ATOMIC(atomicMax, v > old ? v : old, int, unsigned, unsigned long long, long long)
ATOMIC(atomicExch, (void(old), v), int, unsigned, unsigned long long, float)    // tests only
ATOMIC(atomicAnd, T(old& v), int, unsigned, unsigned long long)    // tests only
ATOMIC(atomicOr, T(old | v), int, unsigned, unsigned long long)    // tests only
ATOMIC(atomicXor, T(old ^ v), int, unsigned, unsigned long long)    // tests only
ATOMIC(atomicInc, old >= v ? 0 : old + 1, unsigned)    // tests only
ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1, unsigned)    // tests only
#undef ATOMIC
#if defined(EMULATOR_COUNT)
template <class T> struct Told {    // where atomicCAS is called, when the library is loaded
    static const bool of_cas;
};
template <class T> const bool Told<T>::of_cas = counters::guesses();
#endif
template <class T> COUNTED_CALL T atomicCAS(T* p, typename emulator::same<T>::type expected,    // tests only
                                            typename emulator::same<T>::type desired) {
    static_assert(emulator::one_of<T, int, unsigned, unsigned long long, unsigned short>,
                  "a GPU has no atomicCAS of this type");
#if defined(EMULATOR_COUNT)
    (void)Told<T>::of_cas;
#endif
    COUNTED(atomic("atomicCAS", __builtin_return_address(0), p, sizeof *p));
    return emulator::atomic_update(p, [=](T old) { return old == expected ? desired : old; });
}
