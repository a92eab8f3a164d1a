// found by counted: race      global load in blocks_same_answer.cu:5 and store in blocks_same_answer.cu:5
// A block reads what the block four before it wrote. No order of blocks is promised; here the answer is always right.
template <bool bug> __global__ void chain(int* y) {
    int b = blockIdx.x;
    y[b] = bug && b >= 4 ? y[b - 4] + 4 : b;
}

template <bool bug> void blocks_same_answer() {
    Array<int> y(8);
    for (int i = 0; i < 8; i++) y[i] = i % 4;    // a buffer that is used again
    run("chain", launch(chain<bug>, dim3(8), dim3(1), 0, nullptr, y.p));
    for (int i = 0; i < 8; i++) expect("y", i, y[i], i, 0);
}
