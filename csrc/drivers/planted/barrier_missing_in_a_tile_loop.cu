// found by counted: race      shared store in barrier_missing_in_a_tile_loop.cu:9 and load in barrier_mis
// A tile is loaded, used, and loaded again: the second barrier of the loop keeps fast threads from overwriting what
// slow ones still read.
template <bool bug> __global__ void matrix_vector(const float* a, const float* x, float* y, int K) {
    __shared__ float tile[32];
    int n = threadIdx.x;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 32) {
        tile[n] = x[k0 + n];
        __syncthreads();
        for (int k = 0; k < 32; k++) sum += a[n * K + k0 + k] * tile[k];
        if (!bug) __syncthreads();
    }
    y[n] = sum;
}

template <bool bug> void barrier_missing_in_a_tile_loop() {
    Array<float> a(32 * 96), x(96), y(32);
    for (int i = 0; i < 32 * 96; i++) a[i] = i % 7;
    for (int k = 0; k < 96; k++) x[k] = k % 5;
    run("matrix_vector", launch(matrix_vector<bug>, dim3(1), dim3(32), 0, nullptr, a.p, x.p, y.p, 96));
    for (int n = 0; n < 32; n++) {
        double want = 0;
        for (int k = 0; k < 96; k++) want += a[n * 96 + k] * x[k];
        expect("y", n, y[n], want, 0);
    }
}
