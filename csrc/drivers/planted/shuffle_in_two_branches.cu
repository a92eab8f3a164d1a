// found by plain: stand at different places
// Each branch has its own shuffle, an instruction of its own, which the lanes of the other branch never reach.
template <bool bug> __global__ void branches(const int* x, int* y) {
    int i = threadIdx.x, v = x[i], other;
    if (!bug) other = __shfl_xor_sync(0xffffffffu, v, 1) + i % 2;
    else if (i % 2) other = __shfl_xor_sync(0xffffffffu, v, 1) + 1;
    else
        other = __shfl_xor_sync(0xffffffffu, v, 1);
    y[i] = other;
}

template <bool bug> void shuffle_in_two_branches() {
    Array<int> x(32), y(32);
    for (int i = 0; i < 32; i++) x[i] = i;
    run("branches", launch(branches<bug>, dim3(1), dim3(32), 0, nullptr, x.p, y.p));
    for (int i = 0; i < 32; i++) expect("y", i, y[i], (i ^ 1) + i % 2, 0);
}
