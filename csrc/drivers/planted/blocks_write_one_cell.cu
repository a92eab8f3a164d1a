// found by counted: race      global load in blocks_write_one_cell.cu:4 and store in blocks_write_one_cell.cu:4
// Blocks run at the same time and in any order: two of them must not add to one cell without an atomic operation.
template <bool bug> __global__ void total(const int* x, int* sum) {
    if (bug) *sum += x[blockIdx.x];
    else atomicAdd(sum, x[blockIdx.x]);
}

template <bool bug> void blocks_write_one_cell() {
    Array<int> x(8), sum(1);
    for (int i = 0; i < 8; i++) x[i] = 1 << i;
    sum[0] = 0;
    run("total", launch(total<bug>, dim3(8), dim3(1), 0, nullptr, x.p, sum.p));
    expect("sum", 0, sum[0], 255, 0);
}
