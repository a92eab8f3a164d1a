// found by plain: different barriers: threads 0-31 at __syncthreads in different_barriers.cu:9; threads 32-63 at
// Both branches have a barrier, but not the same one. (A GPU may hang or go on; CUDA leaves it undefined.)
template <bool bug> __global__ void two_branches(int* y) {
    __shared__ int s[64];
    int i = threadIdx.x;
    if (bug) {
        if (i < 32) {
            s[i] = i;
            __syncthreads();
        } else {
            s[i] = -i;
            __syncthreads();
        }
    } else {
        s[i] = i < 32 ? i : -i;
        __syncthreads();
    }
    y[i] = s[63 - i];
}

template <bool bug> void different_barriers() {
    Array<int> y(64);
    run("two_branches", launch(two_branches<bug>, dim3(1), dim3(64), 0, nullptr, y.p));
    for (int i = 0; i < 64; i++) expect("y", i, y[i], i < 32 ? i - 63 : 63 - i, 0);
}
