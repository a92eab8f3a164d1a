// found by compiled: 40960 bytes of arrays declared __shared__ and 204800 of dynamic shared memory
// Each kind of shared memory alone would fit into the 227 KB that a block may have on an H100.
template <bool bug> __global__ void both_kinds(float* y) {
    __shared__ float fixed[10240];
    float* dynamic = dynamic_shared<float>();
    int i = threadIdx.x;
    fixed[i] = dynamic[i] = i;
    __syncthreads();
    y[i] = fixed[31 - i] + dynamic[31 - i];
}

template <bool bug> void static_plus_dynamic_shared() {
    Array<float> y(32);
    run("both_kinds", launch(both_kinds<bug>, dim3(1), dim3(32), (bug ? 200 : 50) << 10, nullptr, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], 62 - 2 * i, 0);
}
