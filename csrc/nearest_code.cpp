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
// Rows or codebooks whose magnitudes lie outside the proof, and so few rows that packing does not pay, take another
// way: sums in double, in any order, choose the codes whose d_nk is computed (search_in_double). The result is the same
// for every instruction set and number of threads. nearest_code_cpu_workspace gives the size of the memory that the
// caller brings.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>
#include "cpu/divide.h"
#include "cpu/nearest_code_problem.h"
#include "cpu/nearest_code_screen.h"
#include "cpu/threads.h"

namespace {

constexpr double PRODUCTS = 2e6;    // that take longer than waking a thread

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
    book.group_unit = arena.take<float>(padded), book.residual = arena.take<float>(padded);
    return book;
}

Scratch layout_scratch(Arena& arena, int64_t K, int64_t D) {
    Scratch s = {};
    s.groups = std::min<int64_t>(1024, whole(K, MAX_TILE) / 4);
    s.rows = arena.take<Row>(BLOCK);
    s.x = arena.take<float>(D + 31);
    s.wide = arena.take<double>((FEW + 1) * (D + 7));
    s.X = arena.take<int16_t>(BLOCK * whole(D, 32));
    s.hit = arena.take<int64_t>(BLOCK * s.groups / 4 + 1);
    s.low = arena.take<float>(BLOCK * s.groups);
    return s;
}

// The centre: of each coordinate the median over a few finite codes. The scale: a typical code's largest number becomes
// 1. False if no code is finite, or if the definition's sums might over- or underflow in double.
bool choose_centre(const Problem& p, Book& book) {
    int64_t sample[SAMPLE];
    double column[SAMPLE];
    int count = 0;
    int64_t step = std::max<int64_t>(1, p.K / SAMPLE);
    for (int64_t k = 0; k < p.K && count < SAMPLE; k += step)
        if (finite(p.e_dtype, p.e, k, p.D)) sample[count++] = k;
    for (int64_t k = 0; k < p.K && count == 0; k++)
        if (finite(p.e_dtype, p.e, k, p.D)) sample[count++] = k;
    if (count == 0) return false;
    double largest[SAMPLE] = {};
    with_dtype(p.e_dtype, [&](auto t) {
        const auto* e = (const decltype(t)*)p.e;
        for (int64_t d = 0; d < p.D; d++) {
            for (int i = 0; i < count; i++) column[i] = to_double(e[sample[i] * p.D + d]);
            std::nth_element(column, column + count / 2, column + count);
            book.centre[d] = column[count / 2], book.narrow_centre[d] = float(column[count / 2]);
            for (int i = 0; i < count; i++)
                largest[i] = std::max(largest[i], std::fabs(to_double(e[sample[i] * p.D + d]) - book.centre[d]));
        }
    });
    std::sort(largest, largest + count);
    double typical = largest[count / 2];
    if (typical == 0) typical = largest[count - 1];
    int exponent = typical > 0 ? std::ilogb(typical) : 0;
    if (typical == INFINITY || std::abs(exponent) > 450) return false;
    book.scale = std::ldexp(1.0, -exponent);
    // the centre is a float; what overflows is farther than FAR_CODE
    book.narrow = p.e_dtype != 3 && std::abs(exponent) <= 60;
    book.delta = 1.01f * (p.D + 64) * 0x1p-24f;
    return true;
}

}    // namespace

extern "C" int64_t nearest_code_cpu_workspace(int64_t K, int64_t D, int threads) {
    Arena arena;
    layout(arena, K, D);
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
    threads = int(std::max(1.0, std::min(double(threads), double(N) * K * D / PRODUCTS)));
    Arena arena(workspace);
    Book book = layout(arena, K, D);
    book.tiles = ceil_div(K, OF_SET(set, TILE));
    std::vector<Scratch> scratch;
    for (int t = 0; t < threads; t++) scratch.push_back(layout_scratch(arena, K, D));

    bool screened = N >= FEW && D <= WIDEST;
    if (screened) parallel(1, 1, [&](int64_t, int) { screened = choose_centre(p, book); });    // rounds as all tasks do
    if (screened) {
        auto pack = OF_SET(set, pack_tile);
        parallel(book.tiles, threads, [&](int64_t tile, int t) { pack(p, book, tile, scratch[t].x); });
        book.sigma = *std::max_element(book.residual, book.residual + book.tiles);
    }
    auto search = screened ? OF_SET(set, search_rows) : OF_SET(set, search_in_double);
    parallel(ceil_div(N, BLOCK), threads, [&](int64_t block, int t) {
        int64_t n = block * BLOCK;
        search(p, book, n, std::min(N, n + BLOCK), scratch[t]);
    });
    return 0;
}
