// found by plain: wrong at
// found by counted: early     shared cp.async in copy_read_before_its_wait.cu:7 and load in copy_read_before_its_wa
// cp.async returns at once; the data arrive by the end of the wait. On the emulator the destination is NaN until then.
template <bool bug> __global__ void through_shared(const float* x, float* y) {
    __shared__ __align__(16) float s[128];
    int i = 4 * threadIdx.x;
    copy_async<16>(s + i, x + i);
    copy_async_commit();
    if (!bug) copy_async_wait<0>();
    for (int j = 0; j < 4; j++) y[i + j] = 2 * s[i + j];
}

template <bool bug> void copy_read_before_its_wait() {
    Array<float> x(128), y(128);
    for (int i = 0; i < 128; i++) x[i] = i;
    run("through_shared", launch(through_shared<bug>, dim3(1), dim3(32), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 128; i++) expect("y", i, y[i], 2 * i, 0);
}
