// found by address: heap-buffer-overflow
// A stencil reads its right neighbour; the last one has none.
template <bool bug> __global__ void difference(const float* x, float* y, int N) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n < N) y[n] = (bug || n + 1 < N ? x[n + 1] : 0) - x[n];
}

template <bool bug> void global_read_out_of_bounds() {
    Array<float> x(100), y(100);
    for (int n = 0; n < 100; n++) x[n] = n * n;
    run("difference", launch(difference<bug>, dim3(2), dim3(64), 0, nullptr, x.p, y.p, 100));
    for (int n = 0; n < 99; n++) expect("y", n, y[n], 2 * n + 1, 0);
}
