// found by plain: wrong at
// found by counted: unwritten shared atomic in shared_uninitialised.cu:10
// A histogram in shared memory that is not set to zero. On a GPU shared memory is often zero, and the bug stays hidden;
// the emulator fills it with NaN.
template <bool bug> __global__ void histogram(const int* x, float* count) {
    __shared__ float s[4];
    int i = threadIdx.x;
    if (!bug && i < 4) s[i] = 0;
    __syncthreads();
    atomicAdd(&s[x[i]], 1.0f);
    __syncthreads();
    if (i < 4) count[i] = s[i];
}

template <bool bug> void shared_uninitialised() {
    Array<int> x(64);
    Array<float> count(4);
    for (int i = 0; i < 64; i++) x[i] = i % 4;
    run("histogram", launch(histogram<bug>, dim3(1), dim3(64), 0, nullptr, x.p, count.p));
    for (int i = 0; i < 4; i++) expect("count", i, count[i], 16, 0);
}
