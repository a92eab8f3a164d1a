// ln of vectors, for each instruction set: a kernel includes it in part 2 (each_set.h), and <cmath> in part 1.
#ifdef SET

template <class V> using number_of = std::remove_reference_t<decltype(V()[0])>;

// 2 atanh(f) = ln((1 + f) / (1 - f)) by its series, for |f| <= 1/3: to 2^-26 (float) and 2^-56 (double)
template <class V> static inline V two_atanh(V f) {
    using T = number_of<V>;
    constexpr int TERMS = sizeof(T) == 4 ? 8 : 17;
    const V zero = {}, ff = f * f;
    V sum = zero + T(2) / (2 * TERMS - 1);
    for (int i = TERMS - 2; i >= 0; i--) sum = fused(sum, ff, zero + T(2) / (2 * i + 1));
    return f * sum;
}

// ln v, of v > 0 that is not subnormal: v = 2^k m with m from sqrt(1/2) to sqrt(2). NaN and infinity stay
template <class V> static inline V logarithm(V v) {
    using T = number_of<V>;
    using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    using Ints = vec<Int>;
    constexpr int FRACTION = sizeof(T) == 4 ? 23 : 52;
    constexpr T HIGH = sizeof(T) == 4 ? T(0x1.62ep-1) : T(0x1.62e42fee00000p-1);    // k HIGH is exact
    constexpr T LOW = sizeof(T) == 4 ? T(0x1.0bfbe8p-15) : T(0x1.a39ef35793c76p-33);
    const Ints bits = (Ints)v, half = (Ints)(V{} + T(0.70710678118654752440));
    const Ints k = (bits - half) >> FRACTION;
    const V m = (V)(bits - (k << FRACTION)), kv = __builtin_convertvector(k, V);
    const V f = (m - 1) / (m + 1), infinite = V{} + T(INFINITY);
    const V found = fused(kv, V{} + HIGH, fused(kv, V{} + LOW, two_atanh(f)));
    return v < infinite ? found : v;
}

#endif
