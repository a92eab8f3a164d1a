// found by counted: race      global store in fence_missing.cu:4 and load in fence_missing.cu:9
// The last block to come adds what the others left. A fence for their blocks alone, and none: the sums may be old.
template <bool bug> __global__ void last_adds(const int* x, int* part, int* ticket, int* sum) {
    part[blockIdx.x] = 2 * x[blockIdx.x];
    bug ? __threadfence_block() : __threadfence();
    if (atomicAdd(ticket, 1) != int(gridDim.x) - 1) return;
    if (!bug) __threadfence();
    int all = 0;
    for (int b = 0; b < int(gridDim.x); b++) all += part[b];
    *sum = all;
}

template <bool bug> void fence_missing() {
    Array<int> x(8), part(8), ticket(1), sum(1);
    for (int i = 0; i < 8; i++) x[i] = 1 << i;
    ticket[0] = 0;
    run("last_adds", launch(last_adds<bug>, dim3(8), dim3(1), 0, nullptr, x.p, part.p, ticket.p, sum.p));
    expect("sum", 0, sum[0], 510, 0);
}
