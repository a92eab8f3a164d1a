// Exercise 3, a search: index_n = the lowest k whose code e_k is nearest to z_n (docs/exercises.md).

#include "gpu.h"

constexpr int TILE = 32;

// d_nk = sum_d (z_nd - e_kd)^2 in double; NaN is no distance, and a row without any has index 0.
//
// A block owns TILE rows and walks along k, TILE codes at a time: thread (x, y) has the distance of row y and code x.
// Along d it walks in steps of TILE numbers, which the block copies into shared memory first, a number a thread.
__global__ void nearest(const float* z, const float* e, int64_t* index, int64_t N, int64_t K, int64_t D) {
    // ---- yours
    __shared__ float z_tile[TILE][TILE + 1], e_tile[TILE][TILE + 1];
    __shared__ double d_tile[TILE][TILE];
    int i = threadIdx.x, r = threadIdx.y;
    int64_t n = blockIdx.x * int64_t(TILE) + r, best = 0;
    double least = INFINITY;
    for (int64_t k = 0; k < K; k += TILE) {
        double sum = 0;
        for (int64_t d = 0; d < D; d += TILE) {
            z_tile[r][i] = n < N && d + i < D ? z[n * D + d + i] : 0;
            e_tile[r][i] = k + r < K && d + i < D ? e[(k + r) * D + d + i] : 0;
            __syncthreads();
            for (int l = 0; l < TILE; l++) {
                double difference = double(z_tile[r][l]) - e_tile[i][l];
                sum += difference * difference;
            }
            __syncthreads();
        }
        d_tile[r][i] = sum;
        __syncthreads();
        for (int l = 0; l < TILE && k + l < K; l++)
            if (d_tile[r][l] < least) least = d_tile[r][l], best = k + l;
        __syncthreads();
    }
    if (n < N && i == 0) index[n] = best;
    // ---- end of yours
}

extern "C" int search(const float* z, const float* e, int64_t* index, int64_t N, int64_t K, int64_t D, void* stream) {
    return launch(nearest, dim3(ceil_div(N, TILE)), dim3(TILE, TILE), 0, stream, z, e, index, N, K, D);
}
