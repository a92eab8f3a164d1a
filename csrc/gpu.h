// All that a kernel of this project uses beyond plain CUDA. The same .cu is compiled
//   by nvcc, for a GPU: launch is <<<>>>, and the instructions below are inline PTX;
//   by g++ -x c++ (C++17), for the CPU: emulator/emulator.h runs it, and the instructions below are plain C++.
//
//   launch(kernel, grid, block, shared_bytes, stream, arguments...)    0, or an error code; gpu_error(code) is its text
//   dynamic_shared<T>()                        the shared_bytes of the launch
//   float16, bfloat16, to_float, to_double, from_real<T>; real<T, ...>, the type of sums
//   with_dtype(code, f), with_dtypes(c, d, f)  calls f with a T, with two; with_float_or_double(code, f)
//   ceil_div(count, size)                      how many tiles of this size hold so many
//   copy_async<16>, _commit, _wait<N>          cp.async: global to shared memory while the thread goes on
//   load_matrix_x4, _x2, and _transposed       ldmatrix: 8x8 tiles from shared memory into the layout of mma
//   mma_16x8x16_f16, _bf16, mma_16x8x8_tf32    mma.sync: a warp multiplies small matrices on the tensor cores
//
// An instruction that no kernel uses yet is marked "tests only": tests/kernels/test_emulator.cu alone runs it.
#pragma once
#include <cfloat>
#include <climits>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "emulator/emulator.h"
#endif

// ---- launching ------------------------------------------------------------------------------------------------------
#if defined(__CUDACC__)
template <class... P, class... A>
int launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, void* stream, A... arguments) {
    if (!grid.x || !grid.y || !grid.z) return 0;    // nothing to do; CUDA calls it an error
    cudaError_t code = cudaSuccess;
    if (shared_bytes > 48 << 10)
        code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (code == cudaSuccess) kernel<<<grid, block, shared_bytes, (cudaStream_t)stream>>>(static_cast<P>(arguments)...);
    cudaError_t launched = cudaGetLastError();    // in any case: the call also clears the error
    return int(code != cudaSuccess ? code : launched);
}

template <class T> __device__ __forceinline__ T* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];
    return reinterpret_cast<T*>(dynamic_shared_bytes);
}

extern "C" const char* gpu_error(int code) { return cudaGetErrorString(cudaError_t(code)); }
#endif

// ---- number types: 0 float32, 1 float16, 2 bfloat16, 3 float64 ------------------------------------------------------
using float16 = __half;
using bfloat16 = __nv_bfloat16;

__host__ __device__ __forceinline__ float to_float(float v) { return v; }
__host__ __device__ __forceinline__ float to_float(float16 v) { return __half2float(v); }
__host__ __device__ __forceinline__ float to_float(bfloat16 v) { return __bfloat162float(v); }
__host__ __device__ __forceinline__ double to_double(double v) { return v; }
template <class T> __host__ __device__ __forceinline__ double to_double(T v) { return double(to_float(v)); }

// One rounding, to nearest, ties to even. NaN stays NaN.
template <class T> struct rounding_to {
    static __host__ __device__ __forceinline__ T of(float v) { return T(v); }    // float, double
    static __host__ __device__ __forceinline__ T of(double v) { return T(v); }
};
template <> struct rounding_to<float16> {
    static __host__ __device__ __forceinline__ float16 of(float v) { return __float2half_rn(v); }
    static __host__ __device__ __forceinline__ float16 of(double v) { return __double2half(v); }
};
template <> struct rounding_to<bfloat16> {
    static __host__ __device__ __forceinline__ bfloat16 of(float v) { return __float2bfloat16_rn(v); }
    static __host__ __device__ __forceinline__ bfloat16 of(double v) { return __double2bfloat16(v); }
};
// The type of sums over numbers of these types: double if one of them is double, else float
template <class... T> using real = std::conditional_t<(std::is_same_v<T, double> || ...), double, float>;

// R: float or double
template <class T, class R> __host__ __device__ __forceinline__ T from_real(R v) { return rounding_to<T>::of(v); }

// with_dtype(code, [&](auto zero) { using T = decltype(zero); return launch(kernel<T>, ...); })
template <class F> int with_dtype(int code, F f) {
    switch (code) {
        case 0: return f(float());
        case 1: return f(float16());
        case 2: return f(bfloat16());
        case 3: return f(double());
    }
    return 1;    // "invalid argument", as CUDA counts
}
template <class F> int with_dtypes(int code, int other, F f) {
    return with_dtype(code, [&](auto a) { return with_dtype(other, [&](auto b) { return f(a, b); }); });
}
template <class F> int with_float_or_double(int code, F f) {
    if (code == 0) return f(float());
    return code == 3 ? f(double()) : 1;
}

__host__ __device__ constexpr int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

// ---- cp.async: a copy from global to shared memory that the thread does not wait for --------------------------------
// Copies are grouped by commit; wait<N>() returns when at most N of this thread's latest groups are still under way.
// Then this thread may read the data; the others may after a barrier. BYTES is 4, 8 or 16, and both addresses are
// multiples of it. The first valid_bytes are copied, and the rest is filled with zeros. (No kernel uses 4 and 8 yet.)
#if defined(__CUDACC__)
template <int BYTES> __device__ __forceinline__ void copy_async(void* shared, const void* global,
                                                                int valid_bytes = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    if (BYTES == 16)    // .cg: past the first cache
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid_bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(BYTES),
                     "r"(valid_bytes)
                     : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#else
template <int BYTES> COUNTED_CALL void copy_async(void* shared, const void* global, int valid_bytes = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    COUNTED(copy_async(__builtin_return_address(0), shared, global, BYTES, valid_bytes));
    COUNTED(Quiet quiet);
    if (((uintptr_t)shared | (uintptr_t)global) % BYTES)
        emulator::fault("copy_async: an address is not a multiple of the copy's size");
    if (valid_bytes < 0 || valid_bytes > BYTES)
        emulator::fault("copy_async: valid_bytes = " + std::to_string(valid_bytes));
    int order = emulator::block->launch->order;
    emulator::Copy copy = {shared, global, {}, BYTES, valid_bytes, emulator::self->group};
    if (order == emulator::FORWARD) copy.read();    // else as late as may be, at the wait
    memset(shared, emulator::poison_of(order), BYTES);    // until the wait
    emulator::self->copies.push_back(copy);
}
static inline void copy_async_commit() { emulator::self->group++; }
template <int N> void copy_async_wait() {
    COUNTED(Quiet quiet);
    emulator::Thread& t = *emulator::self;
    size_t left = 0;
    for (emulator::Copy& copy : t.copies)
        if (copy.group < t.group - N) {
            copy.read(), memcpy(copy.to, copy.bytes, size_t(copy.size));
            COUNTED(copied(t.number, copy.to, size_t(copy.size)));
        } else t.copies[left++] = copy;
    t.copies.resize(left);
}
#endif

// ---- ldmatrix: 8x8 matrices of 16-bit numbers, from shared memory into registers ------------------------------------
// Lane 8 i + r gives the address of row r of matrix i (16 bytes). Afterwards register i of lane l = 4 r + c holds the
// two numbers at columns 2c and 2c + 1 of that row. "transposed" loads the transposed matrix. x2 takes the addresses of
// lanes 0-15.
#if defined(__CUDACC__)
#define LOAD_MATRIX(name, form, count, registers, ...)                                   \
    __device__ __forceinline__ void name(uint32_t (&r)[count], const void* shared_row) { \
        unsigned row = (unsigned)__cvta_generic_to_shared(shared_row);                   \
        asm volatile("ldmatrix.sync.aligned.m8n8." form ".shared.b16 " registers ";"     \
                     : __VA_ARGS__                                                       \
                     : "r"(row)                                                          \
                     : "memory");                                                        \
    }
#define X4 "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
#define X2 "=r"(r[0]), "=r"(r[1])
LOAD_MATRIX(load_matrix_x4, "x4", 4, "{%0, %1, %2, %3}, [%4]", X4)
LOAD_MATRIX(load_matrix_x4_transposed, "x4.trans", 4, "{%0, %1, %2, %3}, [%4]", X4)    // tests only
LOAD_MATRIX(load_matrix_x2, "x2", 2, "{%0, %1}, [%2]", X2)    // tests only
LOAD_MATRIX(load_matrix_x2_transposed, "x2.trans", 2, "{%0, %1}, [%2]", X2)    // tests only
#undef X2
#undef X4
#undef LOAD_MATRIX
#else
namespace emulator {
template <int COUNT> void load_matrix(uint32_t (&r)[COUNT], const void* shared_row, bool transposed, Place place) {
    Gathered rows = gather("ldmatrix", 0xffffffffu, (uint64_t)shared_row, place);
    COUNTED(Quiet quiet);
    if (lane() == __builtin_ctz(rows.lanes))    // one lane tells for all
        COUNTED(load_matrices(rows.of, rows.lanes, COUNT, place.file, place.line));
    int row = lane() / 4, column = lane() % 4 * 2;
    for (int i = 0; i < COUNT; i++) {
        uint16_t number[2] = {0xffff, 0xffff};    // NaN, if the lane with the address has returned
        for (int j = 0; j < 2; j++) {
            int giver = 8 * i + (transposed ? column + j : row);
            const uint16_t* start = (const uint16_t*)rows.of[giver];
            if ((uintptr_t)start % 16) fault("ldmatrix: the address of a row is not a multiple of 16");
            if (rows.lanes >> giver & 1) memcpy(&number[j], start + (transposed ? row : column + j), 2);
        }
        r[i] = number[0] | uint32_t(number[1]) << 16;
    }
}
}    // namespace emulator
#define LOAD_MATRIX(name, count, transposed)                                                \
    static inline void name(uint32_t (&r)[count], const void* shared_row, EMULATOR_PLACE) { \
        emulator::load_matrix(r, shared_row, transposed, {file, line});                     \
    }
LOAD_MATRIX(load_matrix_x4, 4, false)
LOAD_MATRIX(load_matrix_x4_transposed, 4, true)    // tests only
LOAD_MATRIX(load_matrix_x2, 2, false)    // tests only
LOAD_MATRIX(load_matrix_x2_transposed, 2, true)    // tests only
#undef LOAD_MATRIX
#endif

// ---- mma.sync: d += a b on the tensor cores -------------------------------------------------------------------------
// d is 16x8 (float), a is 16xK, b is Kx8; the 32 lanes of a warp hold all three together. With r = lane / 4 and
// c = lane % 4, a lane has
//
//   d[0..3]           rows r, r, r+8, r+8; columns 2c, 2c+1, 2c, 2c+1
//   K = 16   a[0..3]  rows r, r+8, r, r+8; columns 2c, 2c, 2c+8, 2c+8 in the lower half of the register, the next
//                     column in the upper half
//            b[0..1]  k = 2c, 2c+8 in the lower half, the next k in the upper half; column r
//   K = 8    a[0..3]  rows r, r+8, r, r+8; columns c, c, c+4, c+4    (tf32 is a float without its low 13 bits)
//            b[0..1]  k = c, c+4; column r
//
// The sum, as measured on Hopper: products are exact; K products and d are aligned to the largest of them and truncated
// two bits below the last bit of a float; their sum is truncated to a float. So the error of one instruction is less
// than (K/4 + 5/4) 2^-23 of the largest of these numbers. Subnormals are kept; NaN and infinity behave as in IEEE
// arithmetic; a sum of 2^128 or more is infinite.
#if defined(__CUDACC__)
#define MMA(name, shape)                                                                                          \
    __device__ __forceinline__ void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {         \
        asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                         \
    }
MMA(mma_16x8x16_f16, "m16n8k16.row.col.f32.f16.f16.f32")
MMA(mma_16x8x16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")    // tests only
MMA(mma_16x8x8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")    // tests only
#undef MMA
__device__ __forceinline__ uint32_t to_tf32(float v) {    // to nearest, ties away from zero; tests only
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
    return bits;
}
#else
namespace emulator {

// The sum of K products and c, as the tensor core computes it
template <int K> float tensor_core_sum(const double (&product)[K], float c) {
    uint64_t largest = same_bits<uint64_t>(fabs(double(c)));
    double plain = c;
    for (double p : product) largest = std::max(largest, same_bits<uint64_t>(fabs(p))), plain += p;
    if (largest >= same_bits<uint64_t>(double(INFINITY))) return float(plain);    // an infinity or a NaN
    if (largest == 0) return 0;
    // 2^exponent <= largest < 2^(exponent + 1); no double here is subnormal
    int exponent = int(largest >> 52) - 1023;
    double unit = same_bits<double>(uint64_t(1023 + exponent - 25) << 52),
           per_unit = same_bits<double>(uint64_t(1048 - exponent) << 52);
    int64_t sum = int64_t(c * per_unit);         // 23 bits of fraction and 2 more; the conversion cuts the rest off
    for (double p : product) sum += int64_t(p * per_unit);
    double exact = double(sum) * unit;
    if (fabs(exact) >= 0x1p128) return exact < 0 ? -INFINITY : INFINITY;
    float f = float(exact);
    return fabs(double(f)) > fabs(exact) ? nextafterf(f, 0) : f;
}

struct Fragments {
    float* d;
    const uint32_t *a, *b;
};

// The last lane to arrive does the work of the warp. K = 16: two numbers a register; K = 8: one.
template <int K, float (*number)(uint32_t bits)> EMULATOR_UNSEEN void mma(uint32_t lanes, void** operand) {
    Fragments** of = (Fragments**)operand;
    double a[16][K], b[8][K];
    // lanes that have returned hold NaN
    std::fill(&a[0][0], &a[0][0] + 16 * K, NAN), std::fill(&b[0][0], &b[0][0] + 8 * K, NAN);
    constexpr int P = K / 8;
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4 && lanes >> l & 1; i++)
            for (int p = 0; p < P; p++) {
                int k = (l % 4 + i / 2 * 4) * P + p;
                a[l / 4 + i % 2 * 8][k] = number(of[l]->a[i] >> 16 * p);
                if (i % 2) b[l / 4][k] = number(of[l]->b[i / 2] >> 16 * p);
            }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4 && lanes >> l & 1; i++) {
            double product[K];
            for (int k = 0; k < K; k++) product[k] = a[l / 4 + i / 2 * 8][k] * b[l % 4 * 2 + i % 2][k];
            of[l]->d[i] = tensor_core_sum<K>(product, of[l]->d[i]);
        }
}
static inline float f16_number(uint32_t bits) { return to_float(same_bits<float16>(uint16_t(bits))); }
static inline float bf16_number(uint32_t bits) { return to_float(same_bits<bfloat16>(uint16_t(bits))); }
static inline float tf32_number(uint32_t bits) { return same_bits<float>(bits & 0xffffe000u); }

}    // namespace emulator
#define MMA(name, K, number)                                                                                 \
    static inline void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATOR_PLACE) { \
        emulator::Fragments mine = {d, a, b};                                                                \
        emulator::exchange(#name, 0xffffffffu, mine, emulator::mma<K, emulator::number>, {file, line});      \
    }
MMA(mma_16x8x16_f16, 16, f16_number)
MMA(mma_16x8x16_bf16, 16, bf16_number)    // tests only
MMA(mma_16x8x8_tf32, 8, tf32_number)    // tests only
#undef MMA
static inline uint32_t to_tf32(float v) {    // to nearest, ties away from zero; tests only
    uint32_t bits = same_bits<uint32_t>(v);
    return (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : (bits + 0x1000) & 0xffffe000u;
}
#endif
