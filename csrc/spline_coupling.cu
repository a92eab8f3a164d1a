// A monotonic rational-quadratic spline of each number, logdet_n = sum_d ln of its slope, the inverse, and both
// gradients.   Room: kernels/spline_coupling.py
//
//   rung naive      one thread an element, which reads its 3K - 1 parameters from global memory in each of its passes:
//                   32 sectors a request, where 4 could hold it; logdet by one thread a row
//   rung staged     a block copies the parameters of its elements into shared memory, side by side: each is read once,
//                   4 of 4 sectors; elements lie an odd number apart, so that no two lanes meet in a bank; the softmax
//                   and the gradient are made there, which leaves the same way. logdet by one warp a row, in a fixed
//                   tree
//
// x, y (N, D) and w (N, D, 3K - 1) are contiguous, of one dtype T; logdet (N) and the log-slopes (N, D) have the type
// real<T>, in which all arithmetic is done. A row's log-slopes are added in double, in an order that the rung and D
// decide: results repeat bit by bit.

#include "gpu.h"

constexpr int THREADS = 128;             // of a block, each an element
constexpr int SHARED = 48 << 10;         // bytes that a block of any GPU may have
constexpr int MOST_BINS = 64;

// ---- the formulas, once for all rungs and for the CPU ---------------------------------------------------------------

template <class R> __device__ __forceinline__ R e_to(R v) { return exp(v); }
template <class R> __device__ __forceinline__ R root(R v) { return sqrt(v); }
template <class R> __device__ __forceinline__ R logarithm(R v) { return log(v); }
template <class R> __device__ __forceinline__ R log_1_plus(R v) { return log1p(v); }

#define FORMULA __device__ __forceinline__
#include "spline_coupling.h"

// exact: T fits in real<T>
template <class T> __device__ __forceinline__ real<T> number(T v) { return real<T>(to_double(v)); }
template <class T> __device__ __forceinline__ T rounded(real<T> v) { return from_real<T>(v); }

template <class T> struct Problem {
    const T *x, *w;             // (N, D), (N, D, 3K - 1); x is y where the inverse is wanted
    T* y;                       // (N, D): of a forward pass
    real<T>* slopes;            // (N, D): their logarithms
    const T* dy;                // (N, D)
    const real<T>* dlogdet;     // (N)
    T *dx, *dw;                 // (N, D), (N, D, 3K - 1): of a gradient
    int64_t N, D;
    Spline<real<T>> c;
};

template <bool inverse, class T>
__device__ __forceinline__ void write_forward(const Problem<T>& p, int64_t i, const Spot<real<T>>& at) {
    p.y[i] = at.outside ? p.x[i] : rounded<T>(inverse ? x_of(at) : y_of(at));
    p.slopes[i] = inverse ? -log_slope(at) : log_slope(at);
}

// ---- rung naive -----------------------------------------------------------------------------------------------------

// The shares of the K parameters w[0] ... w[K - 1], each computed when it is asked for
template <class T> struct Softmax {
    const T* w;
    real<T> top, sum;
    __device__ __forceinline__ Softmax(const T* w, int K) : w(w), top(number(w[0])), sum(0) {
        for (int j = 1; j < K; j++) top = number(w[j]) > top || number(w[j]) != number(w[j]) ? number(w[j]) : top;
        for (int j = 0; j < K; j++) sum += exp(number(w[j]) - top);
    }
    __device__ __forceinline__ real<T> share(int j) const { return exp(number(w[j]) - top) / sum; }
};

template <bool inverse, class T>
__device__ __forceinline__ Spot<real<T>> find_in_global(const Problem<T>& p, const T* w, real<T> v,
                                                        const Softmax<T>& across, const Softmax<T>& up) {
    const int K = p.c.K;
    auto share = [&](int j) { return j < K ? across.share(j) : up.share(j - K); };
    return find<inverse>(v, p.c, share, [&](int j) { return number(w[2 * K + j]); });
}

template <class T, bool inverse> __global__ void forward_naive(Problem<T> p) {
    int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;    // the element that this thread owns
    if (i >= p.N * p.D) return;
    const T* w = p.w + i * (3 * p.c.K - 1);
    const Softmax<T> across(w, p.c.K), up(w + p.c.K, p.c.K);
    write_forward<inverse>(p, i, find_in_global<inverse>(p, w, number(p.x[i]), across, up));
}

template <class T> __global__ void logdet_naive(const real<T>* slopes, real<T>* logdet, int64_t N, int64_t D) {
    int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;    // the row that this thread owns
    if (n >= N) return;
    double sum = 0;
    for (int64_t d = 0; d < D; d++) sum = __dadd_rn(sum, slopes[n * D + d]);
    logdet[n] = real<T>(sum);
}

template <class T, bool inverse> __global__ void backward_naive(Problem<T> p) {
    int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= p.N * p.D) return;
    const int K = p.c.K;
    const T* w = p.w + i * (3 * K - 1);
    T* dw = p.dw + i * (3 * K - 1);
    const Softmax<T> across(w, K), up(w + K, K);
    const Spot<real<T>> at = find_in_global<inverse>(p, w, number(p.x[i]), across, up);
    const Pull<real<T>> d = pull<inverse>(number(p.dy[i]), p.dlogdet[i / p.D], at, p.c);
    p.dx[i] = rounded<T>(d.input);
    for (int j = 0; j < K; j++) {
        dw[j] = rounded<T>(dshare(j, across.share(j), 0, d, at, p.c));
        dw[K + j] = rounded<T>(dshare(j, up.share(j), 1, d, at, p.c));
        if (j + 1 < K) dw[2 * K + j] = rounded<T>(draw<real<T>, real<T>>(j, d, at));
    }
}

// ---- rung staged ----------------------------------------------------------------------------------------------------

// Numbers of an element in shared memory: an odd count, so that neighbouring threads use different banks
__host__ __device__ constexpr int stride_of(int K) { return (3 * K - 1) | 1; }

// Elements of a block: a power of two, as many as shared memory holds
template <class T> int elements_of_a_block(int K) {
    int elements = THREADS;
    while (elements * stride_of(K) * int(sizeof(real<T>)) > SHARED) elements /= 2;
    return elements;
}

// Neighbouring threads copy neighbouring numbers of the block's elements, first ... first + count - 1
template <class T> __device__ __forceinline__ void copy_in(const Problem<T>& p, int64_t first, int count,
                                                           real<T>* shared) {
    const int J = 3 * p.c.K - 1;
    for (int i = threadIdx.x; i < count * J; i += blockDim.x)
        shared[i / J * stride_of(p.c.K) + i % J] = number(p.w[first * J + i]);
    __syncthreads();
}

template <class R> __device__ __forceinline__ void softmax(R* w, int K) {    // in place
    R top = w[0], sum = 0;
    for (int j = 1; j < K; j++) top = w[j] > top || w[j] != w[j] ? w[j] : top;
    for (int j = 0; j < K; j++) sum += w[j] = exp(w[j] - top);
    for (int j = 0; j < K; j++) w[j] /= sum;
}

template <bool inverse, class T>
__device__ __forceinline__ Spot<real<T>> find_in_shared(const Problem<T>& p, real<T>* w, real<T> v) {
    const int K = p.c.K;
    softmax(w, K), softmax(w + K, K);
    return find<inverse>(v, p.c, [&](int j) { return w[j]; }, [&](int j) { return w[2 * K + j]; });
}

template <class T, bool inverse> __global__ void forward_staged(Problem<T> p) {
    real<T>* shared = dynamic_shared<real<T>>();
    const int64_t first = blockIdx.x * int64_t(blockDim.x), left = p.N * p.D - first, i = first + threadIdx.x;
    copy_in(p, first, int(left < blockDim.x ? left : blockDim.x), shared);
    if (i >= p.N * p.D) return;
    real<T>* w = shared + threadIdx.x * stride_of(p.c.K);
    write_forward<inverse>(p, i, find_in_shared<inverse>(p, w, number(p.x[i])));
}

template <class T>    // warp (block, threadIdx.y) owns row n
__global__ void logdet_staged(const real<T>* slopes, real<T>* logdet, int64_t N, int64_t D) {
    int64_t n = blockIdx.x * int64_t(blockDim.y) + threadIdx.y;
    double sum = 0;
    if (n < N)
        for (int64_t d = threadIdx.x; d < D; d += 32) sum = __dadd_rn(sum, slopes[n * D + d]);
    for (int offset = 16; offset > 0; offset /= 2)
        sum = __dadd_rn(sum, __shfl_down_sync(0xffffffffu, sum, offset, 32));
    if (n < N && threadIdx.x == 0) logdet[n] = real<T>(sum);
}

template <class T, bool inverse> __global__ void backward_staged(Problem<T> p) {
    real<T>* shared = dynamic_shared<real<T>>();
    const int K = p.c.K, J = 3 * K - 1;
    const int64_t first = blockIdx.x * int64_t(blockDim.x), left = p.N * p.D - first, i = first + threadIdx.x;
    const int count = int(left < blockDim.x ? left : blockDim.x);
    copy_in(p, first, count, shared);
    if (i < p.N * p.D) {
        real<T>* w = shared + threadIdx.x * stride_of(K);
        const Spot<real<T>> at = find_in_shared<inverse>(p, w, number(p.x[i]));
        const Pull<real<T>> d = pull<inverse>(number(p.dy[i]), p.dlogdet[i / p.D], at, p.c);
        p.dx[i] = rounded<T>(d.input);
        for (int j = 0; j < K; j++) {
            w[j] = dshare(j, w[j], 0, d, at, p.c), w[K + j] = dshare(j, w[K + j], 1, d, at, p.c);
            if (j + 1 < K) w[2 * K + j] = draw<real<T>, real<T>>(j, d, at);
        }
    }
    __syncthreads();    // what follows reads the gradients of other threads' elements
    for (int i = threadIdx.x; i < count * J; i += blockDim.x)
        p.dw[first * J + i] = rounded<T>(shared[i / J * stride_of(K) + i % J]);
}

// ---- launchers ------------------------------------------------------------------------------------------------------

template <class T, bool inverse> int forward(bool staged, const Problem<T>& p, real<T>* logdet, void* stream) {
    const int elements = staged ? elements_of_a_block<T>(p.c.K) : THREADS;
    const dim3 grid(ceil_div(p.N * p.D, elements)), block(elements);
    if (!staged) {
        int code = launch(forward_naive<T, inverse>, grid, block, 0, stream, p);
        dim3 rows(ceil_div(p.N, THREADS));
        return code ? code : launch(logdet_naive<T>, rows, block, 0, stream, p.slopes, logdet, p.N, p.D);
    }
    int code = launch(forward_staged<T, inverse>, grid, block, elements * stride_of(p.c.K) * sizeof(real<T>), stream,
                      p);
    dim3 rows(ceil_div(p.N, THREADS / 32)), warps(32, THREADS / 32);
    return code ? code : launch(logdet_staged<T>, rows, warps, 0, stream, p.slopes, logdet, p.N, p.D);
}

template <class T, bool inverse> int backward(bool staged, const Problem<T>& p, void* stream) {
    const int elements = staged ? elements_of_a_block<T>(p.c.K) : THREADS;
    const dim3 grid(ceil_div(p.N * p.D, elements)), block(elements);
    if (!staged) return launch(backward_naive<T, inverse>, grid, block, 0, stream, p);
    return launch(backward_staged<T, inverse>, grid, block, elements * stride_of(p.c.K) * sizeof(real<T>), stream, p);
}

template <class T> Spline<real<T>> spline(double B, double least, double shift, int64_t K) {
    return {real<T>(B), real<T>(least), real<T>(shift), int(K)};
}

#define RUNG(rung, staged)                                                                                         \
    extern "C" int spline_coupling_##rung(int dtype, bool inverse, const void* x, const void* w, void* y,          \
                                          void* logdet, void* slopes, double B, double least, double shift,        \
                                          int64_t N, int64_t D, int64_t K, void* stream) {                         \
        if (K < 2 || K > MOST_BINS) return 1;                                                                      \
        return with_dtype(dtype, [&](auto zero) {                                                                  \
            using T = decltype(zero);                                                                              \
            Problem<T> p = {(const T*)x, (const T*)w, (T*)y, (real<T>*)slopes, nullptr, nullptr, nullptr, nullptr, \
                            N, D, spline<T>(B, least, shift, K)};                                                  \
            auto L = (real<T>*)logdet;                                                                             \
            return inverse ? forward<T, true>(staged, p, L, stream) : forward<T, false>(staged, p, L, stream);     \
        });                                                                                                        \
    }                                                                                                              \
    extern "C" int spline_coupling_backward_##rung(int dtype, bool inverse, const void* dy, const void* dlogdet,   \
                                                   const void* x, const void* w, void* dx, void* dw, double B,     \
                                                   double least, double shift, int64_t N, int64_t D, int64_t K,    \
                                                   void* stream) {                                                 \
        if (K < 2 || K > MOST_BINS) return 1;                                                                      \
        return with_dtype(dtype, [&](auto zero) {                                                                  \
            using T = decltype(zero);                                                                              \
            Problem<T> p = {(const T*)x, (const T*)w, nullptr, nullptr, (const T*)dy, (const real<T>*)dlogdet,     \
                            (T*)dx, (T*)dw, N, D, spline<T>(B, least, shift, K)};                                  \
            return inverse ? backward<T, true>(staged, p, stream) : backward<T, false>(staged, p, stream);         \
        });                                                                                                        \
    }

RUNG(naive, false)
RUNG(staged, true)
