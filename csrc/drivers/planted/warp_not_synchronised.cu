// found by plain: wrong at
// found by counted: race      shared store in warp_not_synchronised.cu:7 and load in warp_not_synchronised.cu:9
// The lanes of a warp need not run in step: without __syncwarp the neighbour's number may not be written yet.
template <bool bug> __global__ void reversed(const float* x, float* y) {
    __shared__ float s[32];
    int i = threadIdx.x;
    s[i] = x[i];
    if (!bug) __syncwarp();
    y[i] = s[31 - i];
}

template <bool bug> void warp_not_synchronised() {
    Array<float> x(32), y(32);
    for (int i = 0; i < 32; i++) x[i] = i;
    run("reversed", launch(reversed<bug>, dim3(1), dim3(32), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], 31 - i, 0);
}
