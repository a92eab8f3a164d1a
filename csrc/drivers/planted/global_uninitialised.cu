// found by counted: unwritten global load in global_uninitialised.cu:5
// A workspace of which the kernel writes a part, and reads all: the rest goes into a maximum, which drops its NaN.
template <bool bug> __global__ void greatest_of(const float* x, float* work, float* y, int n) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < n; i++) work[i] = i ? fmaxf(work[i - 1 + 2 * bug], x[i]) : x[0];
        *y = work[n - 1];
    }
}

template <bool bug> void global_uninitialised() {
    Array<float> x(40), work(64), y(1);
    for (int i = 0; i < 40; i++) x[i] = float(i);
    run("greatest_of", launch(greatest_of<bug>, dim3(1), dim3(32), 0, nullptr, x.p, work.p, y.p, 40));
    expect("y", 0, y[0], 39, 0);
}
