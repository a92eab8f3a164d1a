// y = x transposed, n x n numbers, in two ways that differ in where the 32 lanes of a warp read and write.
// docs/counting.md predicts what `genmini count examples/transpose.cu --call "..."` counts of them.

// A thread a number. The lanes of a warp read neighbours of one row, and write to one column: n numbers apart
__global__ void naive(const float* x, float* y, int n) {
    int row = blockIdx.y * 32 + threadIdx.y, column = blockIdx.x * 32 + threadIdx.x;
    float v = x[row * n + column];
    y[column * n + row] = v;
}

// Rows are read and rows are written: in between a block turns its numbers in shared memory, in a tile of 32 rows of W
// columns, of which 32 are used. The lanes of a warp read one column of it
template <int W> __global__ void tiled(const float* x, float* y, int n) {
    __shared__ float tile[32][W];
    int row = blockIdx.y * 32 + threadIdx.y, column = blockIdx.x * 32 + threadIdx.x;
    tile[threadIdx.y][threadIdx.x] = x[row * n + column];
    __syncthreads();
    row = blockIdx.x * 32 + threadIdx.y, column = blockIdx.y * 32 + threadIdx.x;
    y[row * n + column] = tile[threadIdx.x][threadIdx.y];
}
