// found by counted: race      shared load in warp_barrier_missing_in_shared_reduction.cu:11 and store
// The last warp adds in shared memory. Its lanes need not run in step: they need a __syncwarp on both sides of a write.
template <bool bug> __global__ void tail(const float* x, float* y) {
    __shared__ float s[64];
    int i = threadIdx.x;
    s[i] = x[i];
    __syncthreads();
    if (i >= 32) return;
    for (int half = 32; half > 0; half /= 2) {
        float v = 0;
        if (i < half) v = s[i] + s[i + half];
        if (!bug) __syncwarp();
        if (i < half) s[i] = v;
        if (!bug) __syncwarp();
    }
    if (i == 0) *y = s[0];
}

template <bool bug> void warp_barrier_missing_in_shared_reduction() {
    Array<float> x(64), y(1);
    for (int i = 0; i < 64; i++) x[i] = float(i);
    run("tail", launch(tail<bug>, dim3(1), dim3(64), 0, nullptr, x.p, y.p));
    expect("y", 0, y[0], 2016, 0);
}
