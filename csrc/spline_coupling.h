// The formulas of csrc/spline_coupling.cu and .cpp, for one element, or for a vector of elements that are computed side
// by side.   Room: kernels/spline_coupling.py, whose letters these are
//
// V is a number or a vector of numbers, R the type of one. Who includes this has e_to, root, logarithm and log_1_plus
// of a V. csrc/spline_coupling.cpp includes it for each instruction set.
#ifndef FORMULA
#define FORMULA static inline    // of a GPU: __device__
#endif

template <class R> struct Spline {
    R B, least, shift;    // shift: softplus(shift) + least = 1
    int K;
};

template <class V> using Which = decltype(V() < V());
template <class V> FORMULA V pick(Which<V> which, V a, V b) { return which ? a : b; }

// An element's bin and its place there
template <class V> struct Spot {
    Which<V> outside;    // of [-B, B]: there is no bin
    V k, before[2], share[2];    // x and y: the sum of the shares of the bins before it, its own share
    V x0, x1, y0, y1, w, h, s;
    V raw0, raw1, d0, d1;    // parameters of the slopes at its ends, and the slopes
    V t, u, p, i, q;         // p = t u, i = 1 / den
};

template <class V, class R> FORMULA V slope_at(V raw, const Spline<R>& c) {    // least + softplus(raw + shift)
    V a = raw + c.shift;
    V size = pick<V>(a < 0, -a, a);
    return c.least + pick<V>(a < 0, V{}, a) + log_1_plus(e_to(-size));
}
template <class V, class R> FORMULA V dslope(V raw, const Spline<R>& c) {    // sigma(raw + shift)
    V a = raw + c.shift, e = e_to(pick<V>(a < 0, a, -a));
    return pick<V>(a < 0, e, V{} + R(1)) / (1 + e);
}

// share(j): of width j, of height j - K (0 <= j < 2K).   raw(j): the parameter of the slope at knot j + 1.
template <bool inverse, class V, class R, class Share, class Raw>
FORMULA Spot<V> find(V v, const Spline<R>& c, Share share, Raw raw) {
    const V zero = {}, one = zero + R(1), low = zero - c.B, high = zero + c.B;
    const R all = 2 * c.B, rest = 1 - c.K * c.least;
    Spot<V> at = {};
    at.outside = (v < low) | (v > high);
    v = pick<V>(v < low, low, pick<V>(v > high, high, v));
    V x = low, y = low, before_x = zero, before_y = zero, last = zero;
    for (int k = 0; k < c.K; k++) {
        V a = share(k), b = share(c.K + k), end_x = high, end_y = high, next = zero;
        if (k + 1 < c.K) end_x = x + all * (c.least + rest * a), end_y = y + all * (c.least + rest * b), next = raw(k);
        auto here = inverse ? v >= y : v >= x;
        if (k == 0) here = one > zero;
        at.k = pick<V>(here, zero + R(k), at.k);
        at.x0 = pick<V>(here, x, at.x0), at.x1 = pick<V>(here, end_x, at.x1);
        at.y0 = pick<V>(here, y, at.y0), at.y1 = pick<V>(here, end_y, at.y1);
        at.before[0] = pick<V>(here, before_x, at.before[0]), at.share[0] = pick<V>(here, a, at.share[0]);
        at.before[1] = pick<V>(here, before_y, at.before[1]), at.share[1] = pick<V>(here, b, at.share[1]);
        at.raw0 = pick<V>(here, last, at.raw0), at.raw1 = pick<V>(here, next, at.raw1);
        x = end_x, y = end_y, before_x = before_x + a, before_y = before_y + b, last = next;
    }
    at.w = at.x1 - at.x0, at.h = at.y1 - at.y0, at.s = at.h / at.w;
    at.d0 = pick<V>(at.k < 1, one, slope_at(at.raw0, c));
    at.d1 = pick<V>(at.k > R(c.K) - R(1.5), one, slope_at(at.raw1, c));
    if (inverse) {
        V n = (v - at.y0) / at.h, m = (at.y1 - v) / at.h;    // eta and 1 - eta
        V e = at.d0 * m - at.d1 * n, size = pick<V>(e < 0, -e, e);
        V r = root(e * e + 4 * (at.s * at.s) * (n * m)) + size, sn = 2 * at.s * n, sm = 2 * at.s * m;
        at.t = pick<V>(e < 0, r / (r + sm), sn / (r + sn));
        at.u = pick<V>(e < 0, sm / (r + sm), r / (r + sn));
    } else {
        at.t = (v - at.x0) / at.w, at.u = (at.x1 - v) / at.w;
    }
    V tt = at.t * at.t, uu = at.u * at.u;
    at.p = at.t * at.u;
    at.i = 1 / (at.s * (tt + uu) + (at.d0 + at.d1) * at.p);
    at.q = at.d1 * tt + 2 * at.s * at.p + at.d0 * uu;
    return at;
}

// The results are measured from the nearer end of the bin: exact at both
template <class V> FORMULA V y_of(const Spot<V>& at) {
    V from_low = at.y0 + at.h * ((at.s * at.t * at.t + at.d0 * at.p) * at.i);
    V from_high = at.y1 - at.h * ((at.s * at.u * at.u + at.d1 * at.p) * at.i);
    return pick<V>(at.t < at.u, from_low, from_high);
}
template <class V> FORMULA V x_of(const Spot<V>& at) {
    return pick<V>(at.t < at.u, at.x0 + at.w * at.t, at.x1 - at.w * at.u);
}
template <class V> FORMULA V log_slope(const Spot<V>& at) {
    return pick<V>(at.outside, V{}, logarithm(at.q) + 2 * logarithm(at.s * at.i));
}

// Gradients with respect to the input, and to what the parameters decide
template <class V> struct Pull {
    V input, from[2], size[2], raw0, raw1;    // x and y: the bin's first knot, its width or height
};

// Forward: g of y, e of logdet. Inverse: g of x, e of its logdet
template <bool inverse, class V, class R> FORMULA Pull<V> pull(V g, V e, const Spot<V>& at, const Spline<R>& c) {
    const V beyond = g, t = at.t, u = at.u, tt = t * t, uu = u * u, p = at.p, i = at.i;
    const V s = at.s, d0 = at.d0, d1 = at.d1;
    const V along = u - t, si = s * i;
    const V slope = si * si * at.q;    // dy/dx
    // d ln slope / dx
    const V dl = (2 * (d1 * t - d0 * u + s * along) / at.q - 2 * i * ((d0 + d1) - 2 * s) * along) / at.w;
    Pull<V> d;
    V total = g * slope + e * dl;    // the gradient of x
    d.input = total;
    if (inverse) {
        d.input = (g - e * dl) / slope;    // dx/dy = 1 / slope, and x moves logdet
        total = -g, g = -d.input, e = -e;
    }
    const V rho = (s * tt + d0 * p) * i, rho_up = (s * uu + d1 * p) * i, gh = g * at.h * i;
    const V ds = gh * i * p * (tt * d1 - uu * d0) + e * (2 / s + 2 * p / at.q - 2 * i * (tt + uu));
    d.raw0 = (gh * p * rho_up + e * (uu / at.q - 2 * p * i)) * dslope(at.raw0, c);
    d.raw1 = (e * (tt / at.q - 2 * p * i) - gh * p * rho) * dslope(at.raw1, c);
    d.from[0] = -total, d.size[0] = -(t * total + ds * s / at.w);
    d.from[1] = g, d.size[1] = g * rho + ds / at.w;
    d.input = pick<V>(at.outside, beyond, d.input);
    return d;
}

// The gradient of parameter j of a width or a height, whose share is a; axis 0 or 1
template <class V, class R>
FORMULA V dshare(int j, V a, int axis, const Pull<V>& d, const Spot<V>& at, const Spline<R>& c) {
    const V mean = d.from[axis] * at.before[axis] + d.size[axis] * at.share[axis], here = V{} + R(j);
    V its = pick<V>(here < at.k, d.from[axis], pick<V>(here > at.k, V{}, d.size[axis]));
    return pick<V>(at.outside, V{}, (2 * c.B * (1 - c.K * c.least)) * a * (its - mean));
}
// The gradient of the slope at knot j + 1
template <class V, class R> FORMULA V draw(int j, const Pull<V>& d, const Spot<V>& at) {
    const V here = V{} + R(j) + R(1) - at.k;    // 0: the bin begins at this knot, 1: it ends there
    V its = pick<V>(here < R(0.5), d.raw0, d.raw1);
    return pick<V>((at.outside | (here < R(-0.5))) | (here > R(1.5)), V{}, its);
}
