// found by counted: race      shared store in barrier_replaced_by_a_shuffle.cu:6 and load in barrier_repla
// A shuffle makes the lanes meet, but it orders no memory: after it, a lane may not see what another wrote before it.
template <bool bug> __global__ void neighbours(const int* x, int* y) {
    __shared__ int s[32];
    int i = threadIdx.x;
    s[i] = x[i];
    int sum = __shfl_xor_sync(0xffffffffu, x[i], 1);
    if (!bug) __syncwarp();
    y[i] = sum + s[i ^ 2];
}

template <bool bug> void barrier_replaced_by_a_shuffle() {
    Array<int> x(32), y(32);
    for (int i = 0; i < 32; i++) x[i] = i * i;
    run("neighbours", launch(neighbours<bug>, dim3(1), dim3(32), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], x[i ^ 1] + x[i ^ 2], 0);
}
