// found by address: misaligned address
// Rows of 5 floats in shared memory: those of odd threads do not begin at a multiple of 16 bytes.
template <bool bug> __global__ void rows_of_shared(float* y) {
    float* s = dynamic_shared<float>();
    int i = threadIdx.x, stride = bug ? 5 : 8;
    for (int j = 0; j < stride; j++) s[i * stride + j] = float(i);
    float4 v = *(const float4*)(s + i * stride);
    y[i] = v.x + v.w;
}

template <bool bug> void misaligned_shared_vector() {
    Array<float> y(32);
    run("rows_of_shared", launch(rows_of_shared<bug>, dim3(1), dim3(32), 1024, nullptr, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], 2 * i, 0);
}
