// found by plain: argument 0 points to the host's stack
// A kernel is given the address of a table on the host's stack.
template <bool bug> __global__ void look_up(const int* table, int* y) { y[threadIdx.x] = table[threadIdx.x]; }

template <bool bug> void host_pointer() {
    int host[4] = {1, 2, 3, 4};
    Array<int> device(4), y(4);
    for (int i = 0; i < 4; i++) device[i] = host[i];
    run("look_up", launch(look_up<bug>, dim3(1), dim3(4), 0, nullptr, bug ? host : device.p, y.p));
    for (int i = 0; i < 4; i++) expect("y", i, y[i], i + 1, 0);
}
