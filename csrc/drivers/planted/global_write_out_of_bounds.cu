// found by address: heap-buffer-overflow
// 128 threads for 100 numbers, and no mask.
template <bool bug> __global__ void square(const float* x, float* y, int N) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    float v = n < N ? x[n] : 0;
    if (bug || n < N) y[n] = v * v;
}

template <bool bug> void global_write_out_of_bounds() {
    Array<float> x(100), y(100);
    for (int n = 0; n < 100; n++) x[n] = n;
    run("square", launch(square<bug>, dim3(2), dim3(64), 0, nullptr, x.p, y.p, 100));
    for (int n = 0; n < 100; n++) expect("y", n, y[n], n * n, 0);
}
