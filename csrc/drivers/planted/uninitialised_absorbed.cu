// found by counted: unwritten shared load in uninitialised_absorbed.cu:10
// Shared memory that nobody wrote goes into a maximum, which drops the NaN of the emulator; a GPU has numbers there.
template <bool bug> __global__ void greatest(const float* x, float* y, int n) {
    __shared__ float s[64];
    int i = threadIdx.x;
    if (i < n) s[i] = x[i];
    else if (!bug) s[i] = -INFINITY;
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (i < half) s[i] = fmaxf(s[i], s[i + half]);
        __syncthreads();
    }
    if (i == 0) *y = s[0];
}

template <bool bug> void uninitialised_absorbed() {
    Array<float> x(40), y(1);
    for (int i = 0; i < 40; i++) x[i] = float(i);
    run("greatest", launch(greatest<bug>, dim3(1), dim3(64), 0, nullptr, x.p, y.p, 40));
    expect("y", 0, y[0], 39, 0);
}
