// found by plain: argument 0 points to a variable of the host
// The table is a variable of the program, and its address is in a struct.
const int numbers[4] = {1, 2, 3, 4};
struct Tables {
    bool doubled;
    const int* of;
};
__global__ void look_up_in(Tables table, int* y) { y[threadIdx.x] = table.of[threadIdx.x] << table.doubled; }

template <bool bug> void host_pointer_in_a_struct() {
    Array<int> device(4), y(4);
    for (int i = 0; i < 4; i++) device[i] = numbers[i];
    Tables table = {true, bug ? numbers : device.p};
    run("look_up_in", launch(look_up_in, dim3(1), dim3(4), 0, nullptr, table, y.p));
    for (int i = 0; i < 4; i++) expect("y", i, y[i], 2 * i + 2, 0);
}
