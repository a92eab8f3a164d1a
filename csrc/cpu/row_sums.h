// The sum of a row in double, by SUMS partial sums that a tree adds: the same bits on every instruction set. A kernel
// includes it in part 2 (each_set.h).
//
//   RowSums<T> sums;
//   each_of_sums<T>(d0, d1, [&](int j, int64_t d, int64_t count) { sums.add(j, load(row + d, count)); });
//   RowSum<T> sum = sums.total_of_all();    sum.high, and sum.low, which is below its rounding
#ifdef SET

constexpr int SUMS = 16;    // number d belongs to sum d % SUMS

// A sum in doubles, V one or a vector of them. `compensated` keeps beside it the sum of its rounding errors (Knuth's
// two-sum: s + e = a + b exactly, unless it overflows)
template <bool compensated, class V> struct Sum {
    V high, low;
    void add(const V& b) {
        const V a = high, s = a + b;
        if constexpr (compensated) {
            const V bb = s - a, e = (a - (s - bb)) + (b - bb);
            low += e == e ? e : V{};    // e is NaN after an infinity: the result is then high alone
        }
        high = s;
    }
    void add(const Sum& other) { add(other.high), low += other.low; }
};
template <class T> constexpr bool COMPENSATED = sizeof(T) == 8;
template <class T> using RowSum = Sum<COMPENSATED<T>, double>;

template <class T> struct RowSums {
    static constexpr int L = LANES<double>;
    Sum<COMPENSATED<T>, vec<double>> sums[SUMS / L] = {};

    // Vector j of SUMS numbers: term(v ...), in double
    template <class F, class... V> void add_term(int j, F term, V... v) {
        if constexpr (sizeof(T) == 8) sums[j].add(term(v...));
        else sums[2 * j].add(term(wide<0>(v)...)), sums[2 * j + 1].add(term(wide<1>(v)...));
    }
    void add(int j, vec<T> v) {
        add_term(j, [](auto v) { return v; }, v);
    }
    RowSum<T> total_of_all() {
#pragma GCC unroll 4
        for (int half = SUMS / L / 2; half; half /= 2)
            for (int i = 0; i < half; i++) sums[i].add(sums[i + half]);
        if (!COMPENSATED<T>) return {total<double>(sums[0].high), 0};
        RowSum<T> lane[L];
        for (int l = 0; l < L; l++) lane[l] = {sums[0].high[l], sums[0].low[l]};
        for (int half = L / 2; half; half /= 2)
            for (int l = 0; l < half; l++) lane[l].add(lane[l + half]);
        return lane[0];
    }
};

// f(j, d, count) for each vector of columns d0 ... d1-1: the numbers d ... d + count-1 belong to vector j of the sums.
// SUMS divides d0
template <class T, class F> static inline void each_of_sums(int64_t d0, int64_t d1, F f) {
    auto block = [&](int64_t d, int64_t count) {
#pragma GCC unroll 8
        for (int j = 0; j < SUMS / LANES<T>; j++) {
            const int64_t first = j * LANES<T>, left = count - first;
            if (left > 0) f(j, d + first, left < LANES<T> ? left : int64_t(LANES<T>));
        }
    };
    int64_t d = d0;
    for (; d + SUMS <= d1; d += SUMS) block(d, SUMS);
    if (d < d1) block(d, d1 - d);
}

#endif
