// found by lint: multiplication performed in type 'unsigned int'
// The offset of row 70000 of 70000 columns wraps around in 32 bits, without a word, and with it the mask that uses it.
template <bool bug> __global__ void offsets_in_32_bits(int* inside, unsigned D, int64_t size) {
    unsigned n = 70000 + threadIdx.x;
    int64_t at = bug ? n * D : int64_t(n) * D;
    inside[threadIdx.x] = at < size;
}

template <bool bug> void unsigned_overflow() {
    Array<int> inside(4);
    int64_t size = int64_t(70002) * 70000;
    run("offsets_in_32_bits", launch(offsets_in_32_bits<bug>, dim3(1), dim3(4), 0, nullptr, inside.p, 70000u, size));
    for (int i = 0; i < 4; i++) expect("inside", i, inside[i], i < 2, 0);
}
