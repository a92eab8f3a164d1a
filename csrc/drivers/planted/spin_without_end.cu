// found by plain: atomic operations without end
// A thread waits for a flag that no thread sets.
template <bool bug> __global__ void flag(int* raised) {
    if (threadIdx.x == 0)
        while (atomicAdd(raised, 0) == 0) {}
    else if (!bug) atomicExch(raised, 1);
}

template <bool bug> void spin_without_end() {
    Array<int> raised(1);
    raised[0] = 0;
    run("flag", launch(flag<bug>, dim3(1), dim3(2), 0, nullptr, raised.p));
    expect("raised", 0, raised[0], 1, 0);
}
