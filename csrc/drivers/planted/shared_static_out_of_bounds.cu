// found by address: global-buffer-overflow
// A tile is read through a pointer, one row beyond its end.
__device__ __noinline__ float column_sum(const float* p, int rows) {
    float sum = 0;
    for (int n = 0; n < rows; n++) sum += p[8 * n];
    return sum;
}

template <bool bug> __global__ void columns(const float* x, float* y, int rows) {
    __shared__ float tile[8][8];
    int d = threadIdx.x;
    for (int n = 0; n < 8; n++) tile[n][d] = x[8 * n + d];
    __syncthreads();
    y[d] = column_sum(&tile[0][d], rows + bug);
}

template <bool bug> void shared_static_out_of_bounds() {
    Array<float> x(64), y(8);
    for (int i = 0; i < 64; i++) x[i] = i;
    run("columns", launch(columns<bug>, dim3(1), dim3(8), 0, nullptr, x.p, y.p, 8));
    for (int d = 0; d < 8; d++) expect("y", d, y[d], 224 + 8 * d, 0);
}
