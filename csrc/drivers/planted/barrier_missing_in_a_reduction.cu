// found by counted: race      shared load in barrier_missing_in_a_reduction.cu:9 and store in barrier_miss
// Halves are added until one number is left; without the barrier a thread reads a sum that is not yet written.
template <bool bug> __global__ void block_sum(const float* x, float* sum) {
    __shared__ float part[64];
    int i = threadIdx.x;
    part[i] = x[i];
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (i < half) part[i] += part[i + half];
        if (!bug) __syncthreads();
    }
    if (i == 0) *sum = part[0];
}

template <bool bug> void barrier_missing_in_a_reduction() {
    Array<float> x(64), sum(1);
    for (int i = 0; i < 64; i++) x[i] = i;
    run("block_sum", launch(block_sum<bug>, dim3(1), dim3(64), 0, nullptr, x.p, sum.p));
    expect("sum", 0, sum[0], 2016, 0);
}
