// found by address: misaligned address
// A float4 must lie at a multiple of 16 bytes; the second row of 5 floats does not.
template <bool bug> __global__ void row_sums(const float* x, float* y) {
    const float* row = x + 5 * threadIdx.x;
    float sum = 0;
    if (bug) {
        float4 v = *reinterpret_cast<const float4*>(row);
        sum = v.x + v.y + v.z + v.w + row[4];
    } else
        for (int d = 0; d < 5; d++) sum += row[d];
    y[threadIdx.x] = sum;
}

template <bool bug> void misaligned_wide_load() {
    Array<float> x(20), y(4);
    for (int i = 0; i < 20; i++) x[i] = i;
    run("row_sums", launch(row_sums<bug>, dim3(1), dim3(4), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 4; i++) expect("y", i, y[i], 25 * i + 10, 0);
}
