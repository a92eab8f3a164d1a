// Exact nearest-code search on a CPU.   Room: kernels/nearest_code.py
// Proof of the screen: docs/exact-argmin.md, "The CPU screen".
//
//   d_nk = sum over ascending d of (double(z_nd) - double(e_kd))^2, each operation rounded to double,
//          with NaN counted as infinity
//   index_n = the lowest k of least d_nk
//
// 1. Each code, less a centre, becomes 16-bit integers times a unit of its own (pack); so does each row of z.
// 2. Integer dot products, which are exact, bound d_nk from below within a proven margin (bound): the N K D work, at
//    twice the speed of float.
// 3. The few codes below the row's threshold survive (sift). Where two or more do, d_nk is computed as it is defined.
//
// Where a row has few products, floats are multiplied instead (cpu/nearest_code_narrow.h). Rows or codebooks whose
// magnitudes lie outside the proof, and so few rows that packing does not pay, take another way: sums of squares, in
// any order, choose the codes whose d_nk is computed (cpu/nearest_code_few.h). The result is the same for every
// instruction set and number of threads. nearest_code_cpu_workspace gives the size of the memory the caller brings.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>
#include "cpu/divide.h"
#include "cpu/nearest_code_problem.h"
#include "cpu/nearest_code_screen.h"
#include "cpu/threads.h"

namespace {

// Where the float screen is faster, or about as fast; its indices are 32 bits wide
bool few_products(int64_t K, int64_t D) { return (K * D <= 8192 || D <= 8) && K <= INT32_MAX; }

// So few that packing the codebook takes longer than it saves: as long as the distances of `most` rows to all codes, as
// they lie, and 2048 more, which count where codes are few
bool few_rows(const Problem& p) {
    const bool in_float = p.e_dtype == 0 && p.z_dtype != 3;    // else they are summed in double, which takes longer
    int64_t most = 20;
    if (p.D <= 8) most = 6;    // packed as floats (few_products)
    else if (p.K * p.D >= 1 << 23) most = 128;    // 32 MB: pages that the system gives and takes again in each call
    return p.N < FEW || (in_float && p.N * p.K <= most * p.K + 2048);
}

bool may_screen(const Problem& p) { return !few_rows(p) && p.D <= WIDEST; }

// ---- memory ---------------------------------------------------------------------------------------------------------

Book layout(Arena& arena, int64_t K, int64_t D) {
    Book book = {};
    int64_t padded = whole(K, MAX_TILE);
    book.W = ceil_div(D, 2), book.S = whole(book.W, 16);
    book.centre = arena.take<double>(D);
    book.narrow_centre = arena.take<float>(D);
    book.words = arena.take<int16_t>(padded * book.W * 2);
    book.integers = arena.take<int16_t>(padded * book.S * 2);
    book.half = arena.take<float>(padded), book.unit = arena.take<float>(padded);
    book.in_float = few_products(K, D);
    book.y = arena.take<float>(book.in_float ? padded * D : 0);
    book.group_unit = arena.take<float>(padded), book.residual = arena.take<float>(padded);
    return book;
}

Scratch layout_scratch(Arena& arena, int64_t K, int64_t D) {
    Scratch s = {};
    s.groups = std::min<int64_t>(1024, whole(K, MAX_TILE) / 4);
    s.rows = arena.take<Row>(BLOCK);
    s.x = arena.take<float>(BLOCK * whole(D, 16) + 31);
    s.wide = arena.take<double>((FEW + 1) * (D + 7));
    s.X = arena.take<int16_t>(BLOCK * whole(D, 32));
    s.hit = arena.take<int64_t>(BLOCK * s.groups / 4 + 1);
    s.bounds = BLOCK * s.groups;
    s.low = arena.take<float>(s.bounds);
    const int64_t in_lanes = few_products(K, D) ? MOST_ROWS : 0;
    s.rows_in_float = arena.take<float>(in_lanes * whole(D, 32)), s.columns = arena.take<float>(in_lanes * D);
    return s;
}

}    // namespace

extern "C" int64_t nearest_code_cpu_workspace(int z_dtype, int e_dtype, int64_t N, int64_t K, int64_t D, int threads) {
    Arena arena;
    if (may_screen({z_dtype, e_dtype, nullptr, nullptr, nullptr, N, K, D})) layout(arena, K, D);
    for (int t = 0; t < threads; t++) layout_scratch(arena, K, D);
    return arena.bytes();
}

extern "C" const char* nearest_code_cpu_info() { return name_of(instruction_set()); }

// index (N,) of z (N, D) and e (K, D), both contiguous. dtypes: 0 float32, 1 float16, 2 bfloat16, 3 float64. Returns 0,
// or 1 for a bad argument.
extern "C" int nearest_code_cpu(int z_dtype, int e_dtype, const void* z, const void* e, int64_t* index, int64_t N,
                                int64_t K, int64_t D, void* workspace, int threads) {
    if (z_dtype < 0 || z_dtype > 3 || e_dtype < 0 || e_dtype > 3 || N < 0 || K < 1 || D < 0 || threads < 1) return 1;
    Problem p = {z_dtype, e_dtype, z, e, index, N, K, D};
    const int set = instruction_set();
    Arena arena(workspace);
    bool screened = may_screen(p);
    Book book = screened ? layout(arena, K, D) : Book{};
    book.tiles = ceil_div(K, OF_SET(set, TILE)), book.in_float &= z_dtype != 3 && e_dtype != 3;
    // A product takes 20 ps, 10 or 5. A thread also waits for the codes that another packs: for 60,000 numbers as long
    // as it takes to begin, and no longer for those that its cache does not hold
    const double product = !screened ? 0.02 : book.in_float ? 0.01
                                                            : 0.005;
    const double waits = screened ? std::min<int64_t>(K * D, 1 << 18) / 60e3 : 0;
    threads = worth_waking(threads, N * K * D, product / (1 + waits));
    std::vector<Scratch> scratch;
    for (int t = 0; t < threads; t++) scratch.push_back(layout_scratch(arena, K, D));

    const auto centre = OF_SET(set, choose_centre_of);
    const auto pack = OF_SET(set, pack_tile);
    if (screened) parallel(1, 1, [&](int64_t, int) { screened = centre(p, book); });    // rounds as all tasks do
    if (screened) {
        parallel(book.tiles, threads, [&](int64_t tile, int t) { pack(p, book, tile, scratch[t]); });
        book.sigma = *std::max_element(book.residual, book.residual + book.tiles);
    }
    const auto search = screened ? OF_SET(set, search_rows) : OF_SET(set, search_directly);
    // each thread takes as many blocks. Two rows are searched at a time without a screen, some panels of rows with one
    const int64_t at_once = screened ? MOST_ROWS : 2, blocks = whole(std::max<int64_t>(1, ceil_div(N, BLOCK)), threads),
                  rows = std::max(at_once, whole(ceil_div(N, blocks), at_once));
    parallel(ceil_div(N, rows), threads, [&](int64_t block, int t) {
        int64_t n = block * rows;
        search(p, book, n, std::min(N, n + rows), scratch[t]);
    });
    return 0;
}
