// The last part of test_emulator.cu, which includes it: kernels with mistakes that the emulator must report, and
// what may look like one.

__global__ void barrier_for_some(int* out) {
    if (threadIdx.x < 40) __syncthreads();
    else __shfl_sync(0xffffffffu, 1, 0);    // lanes 0-7 of warp 1 never come
    out[threadIdx.x] = 1;
}
__global__ void different_barriers(int* out) {
    if (threadIdx.x % 2) __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void absent_lanes(int* out) {
    if (threadIdx.x >= 16) out[0] = __shfl_sync(0xffffffffu, 1, 0);
    else __syncwarp(0x0000ffffu), __syncthreads();
}
__global__ void not_in_the_mask(int* out) { out[threadIdx.x] = __ballot_sync(0x1u, 1); }
__global__ void misaligned_copy(int* out) { copy_async<16>(dynamic_shared<int>(), (const char*)out + 4); }
__global__ void spins(int* out) {
    if (threadIdx.x == 0)
        while (atomicAdd(out, 0) == 0) {}
}
__global__ void waits_for_a_later_thread(int* out) {    // a spin that ends, if the others may run
    if (threadIdx.x == 0)
        while (atomicAdd(out, 0) < int(blockDim.x) - 1) {}
    else atomicAdd(out, 1);
}
__global__ void votes_in_two_branches(int* out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __any_sync(0xffffffffu, 1);
    else
        out[threadIdx.x] = __any_sync(0xffffffffu, 0);
}
extern "C" int run_mistake(int which, int* out) {
    void (*const mistakes[])(int*) = {barrier_for_some, different_barriers, absent_lanes,
                                      not_in_the_mask, misaligned_copy, spins,
                                      waits_for_a_later_thread, votes_in_two_branches};
    return launch(mistakes[which], dim3(3, 2), dim3(64), 64, nullptr, out);
}

// One line of the source, in the turns of two loops, and __syncwarp, which may stand in two branches
__device__ __forceinline__ int from_the_next(int v) { return __shfl_xor_sync(0xffffffffu, v, 1); }
__global__ void one_place(int* out) {
    int i = threadIdx.x, sum = 0;
    for (int turn = i % 2; turn < 4 + i % 2; turn++) sum += from_the_next(turn);
    if (i % 2) __syncwarp();
    else
        __syncwarp();
    out[i] = sum;
}
extern "C" int run_one_place(int* out) { return launch(one_place, dim3(1), dim3(64), 0, nullptr, out); }

__global__ void __launch_bounds__(64, 2) at_most_64(int* out) { out[threadIdx.x] = 64; }
template <int THREADS> __global__ void __launch_bounds__(THREADS) at_most(int* out) { out[threadIdx.x] = THREADS; }
__global__ void no_promise(int* out) { out[threadIdx.x] = 1024; }
extern "C" int run_promised(int which, int* out, int threads) {
    void (*const kernels[])(int*) = {at_most_64, at_most<96>, at_most<512>, no_promise};
    return launch(kernels[which], dim3(1), dim3(threads), 0, nullptr, out);
}

struct Pointers {
    int first;
    const int *table, *other;
};
__global__ void through(const int* table, int* out) { out[threadIdx.x] = table[threadIdx.x]; }
__global__ void through_struct(Pointers of, int* out) { out[threadIdx.x] = of.table[threadIdx.x] + of.first; }
extern "C" int run_pointers(int which, const int* table, int* out) {
    static const int variable[4] = {};
    int stack[4] = {};
    const int* pointer = which % 3 == 0 ? table : which % 3 == 1 ? stack
                                                                 : variable;
    if (which < 3) return launch(through, dim3(1), dim3(4), 0, nullptr, pointer, out);
    return launch(through_struct, dim3(1), dim3(4), 0, nullptr, Pointers{0, pointer, nullptr}, out);
}
#if !defined(__CUDACC__)
extern "C" void call_a_kernel_as_a_function(int* out) { different_barriers(out); }
#endif
