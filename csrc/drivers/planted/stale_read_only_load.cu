// found by counted: stale     global store in stale_read_only_load.cu:7 and load in stale_read_only_load.cu:9
// __ldg reads by a cache that sees no writes: nobody may write there during the launch.
template <bool bug> __global__ void swap_pairs(float* x, float* y) {
    int i = threadIdx.x;
    float other = x[i ^ 1];
    __syncthreads();
    x[i] = other + 1;
    __syncthreads();
    y[i] = bug ? __ldg(x + (i ^ 1)) : x[i ^ 1];
}

template <bool bug> void stale_read_only_load() {
    Array<float> x(64), y(64);
    for (int i = 0; i < 64; i++) x[i] = float(i);
    run("swap_pairs", launch(swap_pairs<bug>, dim3(1), dim3(64), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 64; i++) expect("y", i, y[i], i + 1, 0);
}
