// found by counted: early     shared cp.async in copy_stage_refilled_too_early.cu:9 and load in copy_stage_refilled
// Three stages of a ring, and a fourth copy under way: it goes into the stage that is read.
template <bool bug> __global__ void ring(const float* x, float* y, int steps) {
    __shared__ __align__(16) float s[3][128];
    int i = threadIdx.x;
    float sum = 0;
    auto fetch = [&](int step) {
        if (step < steps)
            copy_async<4>(&s[step % 3][i], x + 128 * step + i);
        copy_async_commit();
    };
    fetch(0), fetch(1);
    for (int step = 0; step < steps; step++) {
        copy_async_wait<1>();
        __syncthreads();
        fetch(step + 2 + bug);
        sum += s[step % 3][127 - i];
    }
    y[i] = sum;
}

template <bool bug> void copy_stage_refilled_too_early() {
    Array<float> x(1024), y(128);
    for (int i = 0; i < 1024; i++) x[i] = float(i);
    run("ring", launch(ring<bug>, dim3(1), dim3(128), 0, nullptr, x.p, y.p, 8));
    for (int i = 0; i < 128; i++) expect("y", i, y[i], 8 * (127 - i) + 128 * 28, 0);
}
