// found by plain: __syncthreads in dead_lock.cu:7; threads 16-31 at __shfl_sync(0xffffffff) in dead_lock.cu:8
// Half of a warp waits at a barrier for the other half, which waits for it in a shuffle.
template <bool bug> __global__ void half_a_warp(int* y) {
    int i = threadIdx.x, v = i;
    unsigned lanes = bug ? 0xffffffffu : 0xffff0000u;
    if (i < 16) {
        __syncthreads();
    } else v = __shfl_sync(lanes, v, 20);
    y[i] = v;
}

template <bool bug> void dead_lock() {
    Array<int> y(32);
    run("half_a_warp", launch(half_a_warp<bug>, dim3(1), dim3(32), 0, nullptr, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], i < 16 ? i : 20, 0);
}
