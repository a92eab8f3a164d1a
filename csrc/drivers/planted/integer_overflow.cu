// found by address: runtime error: signed integer overflow
// An offset in 32 bits: row 70000 of 40000 columns begins beyond 2^31.
template <bool bug> __global__ void offsets(int64_t* y, int D) {
    int n = 70000 + threadIdx.x;
    y[threadIdx.x] = bug ? n * D : int64_t(n) * D;
}

template <bool bug> void integer_overflow() {
    Array<int64_t> y(4);
    run("offsets", launch(offsets<bug>, dim3(1), dim3(4), 0, nullptr, y.p, 40000));
    for (int i = 0; i < 4; i++) expect("y", i, double(y[i]), (70000.0 + i) * 40000, 0);
}
