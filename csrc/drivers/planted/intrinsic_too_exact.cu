// found by plain: wrong at
// __expf errs by up to 2 + |1.173 x| units in the last place, some ninety of them at x = 80.
template <bool bug> __global__ void powers(const float* x, float* y) {
    int i = threadIdx.x;
    y[i] = bug ? __expf(x[i]) : expf(x[i]);
}

template <bool bug> void intrinsic_too_exact() {
    Array<float> x(32), y(32);
    for (int i = 0; i < 32; i++) x[i] = 50 + i;
    run("powers", launch(powers<bug>, dim3(1), dim3(32), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], exp(double(x[i])), 0x1p-22 * exp(double(x[i])));
}
