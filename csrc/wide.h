// Several neighbouring numbers that one instruction loads or stores.
// Rooms: kernels/affine_coupling.py, kernels/quantize.py
#pragma once
#include <cstdint>
#include <initializer_list>

// V numbers. More than 16 bytes are loaded by several instructions, 16 bytes each
template <class T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Wide {
    T v[V];
};

// 16-byte loads need rows of whole 16 bytes at addresses that are multiples of 16
template <class T> bool aligned(int64_t D, std::initializer_list<const void*> pointers) {
    uintptr_t bits = D * sizeof(T);
    for (const void* p : pointers) bits |= (uintptr_t)p;
    return bits % 16 == 0;
}
