// found by address: heap-buffer-overflow
// The launch asks for 32 floats of dynamic shared memory; thread 31 writes the 33rd.
template <bool bug> __global__ void shifted(float* y) {
    float* s = dynamic_shared<float>();
    int i = threadIdx.x;
    s[bug ? i + 1 : i] = i;
    __syncthreads();
    y[i] = s[i];
}

template <bool bug> void shared_dynamic_out_of_bounds() {
    Array<float> y(32);
    run("shifted", launch(shifted<bug>, dim3(1), dim3(32), 32 * sizeof(float), nullptr, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], i, 0);
}
