// found by counted: race      shared cp.async in copy_wait_without_barrier.cu:6 and load in copy_wait_without_ba
// The wait is for one's own copies; those of the neighbours need a barrier.
template <bool bug> __global__ void from_neighbours(const float* x, float* y) {
    __shared__ __align__(16) float s[256];
    int i = threadIdx.x;
    copy_async<16>(s + 4 * i, x + 4 * i);
    copy_async_commit(), copy_async_wait<0>();
    if (!bug) __syncthreads();
    y[i] = s[252 - 4 * i];
}

template <bool bug> void copy_wait_without_barrier() {
    Array<float> x(256), y(64);
    for (int i = 0; i < 256; i++) x[i] = float(i);
    run("from_neighbours", launch(from_neighbours<bug>, dim3(1), dim3(64), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 64; i++) expect("y", i, y[i], 252 - 4 * i, 0);
}
