// found by plain: __launch_bounds__ promise at most 64
// The compiler was promised blocks of at most 64 threads, and gives each as many registers: a card refuses 128.
template <bool bug> __global__ void __launch_bounds__(bug ? 64 : 128) promised(float* y) {
    y[threadIdx.x] = threadIdx.x;
}

template <bool bug> void launch_bounds_exceeded() {
    Array<float> y(128);
    run("promised", launch(promised<bug>, dim3(1), dim3(128), 0, nullptr, y.p));
    for (int i = 0; i < 128; i++) expect("y", i, y[i], i, 0);
}
