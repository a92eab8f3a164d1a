// Vectors of numbers, for the instruction set that csrc/cpu/lanes.h is compiling.
//
// Defined by it: BYTES of a vector, and for float and double
//   fused(a, b, c)       a b + c, rounded once or twice
//   least(a, b), most(a, b)   the smaller and the larger; if b is NaN, b
//   inverse(v)           1 / v, to about one rounding
//   part(p, rest)        the first `rest` numbers at p, then zeros;   store_part(p, v, rest) stores them alone

template <class T> struct Vector {
    typedef T type __attribute__((vector_size(BYTES)));
};
template <class T> using vec = typename Vector<T>::type;
template <class T> constexpr int LANES = BYTES / sizeof(T);

template <class T> static inline vec<T> load(const T* p) {
    vec<T> v;
    std::memcpy(&v, p, BYTES);
    return v;
}
template <class T> static inline void store(T* p, vec<T> v) { std::memcpy(p, &v, BYTES); }

// A row of H numbers is H / LANES vectors, and one more for the rest: f(offset, how many numbers of it count)
template <class T, class F> static inline void each_vector(int64_t H, F f) {
    int64_t h = 0;
    for (; h + LANES<T> <= H; h += LANES<T>) f(h, int64_t(LANES<T>));
    if (h < H) f(h, H - h);
}
template <class T> static inline vec<T> load(const T* p, int64_t rest) {
    return rest == LANES<T> ? load(p) : part(p, int(rest));
}
template <class T> static inline void store(T* p, vec<T> v, int64_t rest) {
    if (rest == LANES<T>) store(p, v);
    else store_part(p, v, int(rest));
}

// The sum of the lanes: halves meet
template <class T> static inline T total(vec<T> v) {
    T lane[LANES<T>];
    store(lane, v);
    for (int half = LANES<T> / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

// e^a = 2^(k + r), k an integer and |r| <= 1/2; 2^r by the polynomial in Chebyshev's points there, which is right to
// 2^-28 (float) and
// 2^-57 (double). Beyond +-CUT it stays what it is at CUT. NaN stays NaN.
constexpr float POWER_OF_2[] = {1, .693147206704f, .240226509223f, .0555032722332f,
                                .00961805667562f, .00134004295178f, .000154614458588f};
constexpr double WIDE_POWER_OF_2[] = {1, .693147180559945309, .240226506959101596, .055504108664821627,
                                      .00961812910758725337, .00133335581464064689, .000154035304637285774,
                                      1.52527338415590236e-5, 1.32154325337403971e-6, 1.01780570865762424e-7,
                                      7.07419468342134165e-9, 4.45581811415037088e-10};
template <class T> constexpr T CUT = sizeof(T) == 4 ? T(87) : T(708);
template <class T> static inline vec<T> exponential(vec<T> a) {
    constexpr bool single = sizeof(T) == 4;
    using Int = std::conditional_t<single, int32_t, int64_t>;
    constexpr T MAGIC = single ? T(0x1.8p23) : T(0x1.8p52);    // adding MAGIC rounds to an integer
    constexpr int DEGREE = single ? 6 : 11;
    const vec<T> zero = {}, log2_e = T(0x1.71547652b82fep0) + zero;
    auto coefficient = [](int i) { return single ? T(POWER_OF_2[single ? i : 0]) : T(WIDE_POWER_OF_2[i]); };
    a = least(CUT<T> + zero, most(-CUT<T> + zero, a));
    vec<T> shifted = fused(a, log2_e, MAGIC + zero), r = fused(a, log2_e, MAGIC - shifted),
           power = coefficient(DEGREE) + zero;
    for (int i = DEGREE - 1; i >= 0; i--) power = fused(power, r, coefficient(i) + zero);
    // the low bits of `shifted` are k: times 2^k
    return (vec<T>)((vec<Int>)power + ((vec<Int>)shifted << (single ? 23 : 52)));
}

// sigma(a) = 1 / (1 + e^-a), to about two roundings
template <class T> static inline vec<T> sigma(vec<T> a) { return inverse(T(1) + exponential<T>(-a)); }
