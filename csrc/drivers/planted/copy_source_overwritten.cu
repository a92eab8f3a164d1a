// found by plain: wrong at
// cp.async reads its source at some time before the wait; here it is written in between.
template <bool bug> __global__ void overwritten(float* x, float* y) {
    __shared__ __align__(16) float s[4];
    copy_async<16>(s, x);
    copy_async_commit();
    if (!bug) copy_async_wait<0>();
    for (int j = 0; j < 4; j++) x[j] = -1;
    copy_async_wait<0>();
    for (int j = 0; j < 4; j++) y[j] = s[j];
}

template <bool bug> void copy_source_overwritten() {
    Array<float> x(4), y(4);
    for (int i = 0; i < 4; i++) x[i] = i;
    run("overwritten", launch(overwritten<bug>, dim3(1), dim3(1), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 4; i++) expect("y", i, y[i], i, 0);
}
