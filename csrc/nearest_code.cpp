// Exact nearest-code search on a CPU.
// Room: kernels/nearest_code.py.
// Proof of the screen: docs/exact-argmin.md, "The CPU screen".
//
//   d_nk = sum over ascending d of (double(z_nd) - double(e_kd))^2, each operation rounded to double, NaN counted as
//   infinity index_n = the lowest k of least d_nk
//
// 1. Every code, less a centre, becomes 16-bit integers times a power of two of its own (pack); so does every row of z.
// 2. Integer dot products, which are exact, bound d_nk from below within a proven margin (bound): the N K D work, at
// twice the speed of float.
// 3. The few codes under the row's threshold survive (sift); where there are two or more, they are computed in double
// as d_nk is defined. A row or a codebook whose magnitudes lie outside the proof, and so few rows that packing does not
// pay, go through sums in double of any order instead (glance). The answer is the same for every instruction set and
// number of threads. Memory is the caller's: nearest_code_cpu_workspace says how much. GENMINI_CPU=avx512, avx2 or
// scalar chooses the instruction set, where the processor has it.

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>
#include "cpu/helpers.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE_X86 1    // the other instruction sets can be compiled here, whatever the compiler's own target is
#include <immintrin.h>
#endif

namespace {

// ---- the four dtypes ------------------------------------------------------------------------------------------------

struct float16 {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};

inline float from_bits(uint32_t bits) {
    float v;
    std::memcpy(&v, &bits, 4);
    return v;
}
inline double to_double(double v) { return v; }
inline double to_double(float v) { return v; }
inline double to_double(bfloat16 v) { return from_bits(uint32_t(v.bits) << 16); }
inline double to_double(float16 v) {
    uint32_t sign = uint32_t(v.bits & 0x8000) << 16, rest = uint32_t(v.bits & 0x7fff) << 13;
    // moves the exponent's bias from 15 to 127, subnormals included
    float finite = from_bits(rest | sign) * 0x1p112f;
    return rest >= 0x0f800000 ? from_bits(rest | sign | 0x7f800000) : finite;
}

template <class F> void with_dtype(int dtype, F f) {
    if (dtype == 0) f(float());
    if (dtype == 1) f(float16());
    if (dtype == 2) f(bfloat16());
    if (dtype == 3) f(double());
}

// ---- the definition -------------------------------------------------------------------------------------------------

struct Problem {
    int z_dtype, e_dtype;
    const void *z, *e;
    int64_t* index;
    int64_t N, K, D;
};

struct Nearest {
    double d = INFINITY;
    int64_t k = 0;
    void offer(double other, int64_t j) {
        if (other < d || (other == d && j < k)) d = other, k = j;
    }    // NaN is never less
};

// Offer d_nk of J codes: J sums at a time, since each is one long chain of additions
template <int J, class Z, class E> void measure(const Problem& p, int64_t n, const int64_t (&k)[J], Nearest& nearest) {
    const Z* z = (const Z*)p.z + n * p.D;
    const E* e[J];
    double sum[J] = {};
    for (int j = 0; j < J; j++) e[j] = (const E*)p.e + k[j] * p.D;
    for (int64_t d = 0; d < p.D; d++)
        for (int j = 0; j < J; j++) {
            double difference = to_double(z[d]) - to_double(e[j][d]);
            sum[j] += difference * difference;
        }
    for (int j = 0; j < J; j++) nearest.offer(sum[j], k[j]);
}

template <class Z, class E> void measure(const Problem& p, int64_t n, const int64_t* codes, int64_t count,
                                         Nearest& nearest) {
    auto code = [&](int64_t i) { return codes[std::min(i, count - 1)]; };
    int64_t i = 0;
    for (; i + 2 < count; i += 4) measure<4, Z, E>(p, n, {code(i), code(i + 1), code(i + 2), code(i + 3)}, nearest);
    if (i < count) measure<2, Z, E>(p, n, {code(i), code(i + 1)}, nearest);
}

void measure(const Problem& p, int64_t n, const int64_t* codes, int64_t count, Nearest& nearest) {
    with_dtype(p.z_dtype, [&](auto z) {
        with_dtype(p.e_dtype, [&](auto e) { measure<decltype(z), decltype(e)>(p, n, codes, count, nearest); });
    });
}

bool finite(int dtype, const void* x, int64_t row, int64_t D) {
    bool all = true;
    with_dtype(dtype, [&](auto t) {
        for (int64_t d = 0; d < D; d++) all &= std::isfinite(to_double(((const decltype(t)*)x)[row * D + d]));
    });
    return all;
}

// ---- what the screen works on ---------------------------------------------------------------------------------------

// ||x / unit|| <= RADIUS: so integers fit in 16 bits, and their norm is at most C   (C1)
constexpr float RADIUS = 32400;
constexpr float C = 33000;
constexpr float SMALLEST = 0x1p-60f;      // units are 2^-60 or more: the product of two cannot underflow
// squared norms, in the scale where a typical code's largest number is 1   (C7)
constexpr float FAR_CODE = 0x1p122f;
constexpr float FAR_ROW = 0x1p118f;
constexpr int64_t WIDEST = 65536;         // the largest D that the rounding of norms is proven for
constexpr double WORTH_A_THREAD = 2e6;    // products that take longer than waking a thread
constexpr int FEW = 4;                    // fewer rows are not worth a packed codebook
constexpr int MAX_TILE = 64, BLOCK = 48, KEPT = 32, SAMPLE = 31;

struct Book {                             // the codebook, packed
    // any finite centre and any power of two are valid; the better, the fewer survivors
    double *centre, scale;
    int16_t *words, *integers;
    float *half, *unit, *group_unit, *residual;
    float *narrow_centre, delta, sigma;
    bool narrow;                          // centring may be done in float
    // words of 32 bits a code; the same padded, for `integers` and rows; tiles of codes
    int64_t W, S, tiles;
};

struct Row {
    int64_t n;
    bool screened;
    float square, unit, twice_w, threshold;
    int32_t margin;
    int kept;
    int64_t code[KEPT];
    float lower[KEPT];
    Nearest nearest;

    void begin(int64_t row, float norm2) {
        n = row, square = norm2, screened = square <= FAR_ROW;                // not if NaN
        threshold = INFINITY, kept = margin = 0, unit = 0, nearest = Nearest();
    }
    void prune() {
        int still = 0;
        for (int i = 0; i < kept; i++)
            if (lower[i] <= threshold) code[still] = code[i], lower[still++] = lower[i];
        kept = still;
    }
    void make_room(const Problem& p, int count) {
        if (kept + count > KEPT) prune();                                     // the threshold may have fallen since
        if (kept + count > KEPT) measure(p, n, code, kept, nearest), kept = 0;
    }
    int64_t finish(const Problem& p) {
        prune();
        // nothing else can be as near, whatever its distance
        if (kept == 1 && nearest.d == INFINITY) return code[0];
        measure(p, n, code, kept, nearest);
        return nearest.k;
    }
};

struct Scratch {                          // of one thread
    Row* rows;
    float *x, *low;
    double* wide;                         // FEW rows and a code
    int16_t* X;
    // row, tile, and a bit for each group of the tile that may hold the row's nearest code
    int64_t* hit;
    int64_t groups;                       // of codes, that a row's bounds have room for
};

// ---- the screen, once for each instruction set ----------------------------------------------------------------------

struct Screen {
    const char* name;
    int tile;
    void (*pack)(const Problem&, const Book&, int64_t tile, float* y);
    void (*search)(const Problem&, const Book&, int64_t n0, int64_t n1, Scratch&);
    void (*glance)(const Problem&, int64_t n0, int64_t n1, Scratch&);
};

#ifdef __clang__
template <class V, class I> V SHUFFLE(V v, I from) {
    V out;
    for (size_t l = 0; l < sizeof(I) / 4; l++) out[l] = v[from[l]];
    return out;
}
#else
#define SHUFFLE __builtin_shuffle
#endif
#define VECTOR_TYPES                                                                 \
    typedef float vfloat __attribute__((vector_size(4 * LANES), may_alias));         \
    typedef int32_t vint __attribute__((vector_size(4 * LANES), may_alias));         \
    typedef int16_t vshort __attribute__((vector_size(2 * LANES), may_alias));       \
    inline vfloat splat(float a) { return a - vfloat{}; }                            \
    inline vint splat(int32_t a) { return a - vint{}; }                              \
    template <class V> inline V rotated(V v, vint from) { return SHUFFLE(v, from); } \
    inline vint blended(vint a, vint b, vint from) { return SHUFFLE(a, b, from); }
#define SCREEN(NAME)                                                                         \
    const Screen screen = {                                                                  \
        NAME, TILE,                                                                          \
        [](const Problem& p, const Book& book, int64_t tile, float* y) {                     \
            with_dtype(p.e_dtype, [&](auto t) { pack<decltype(t)>(p, book, tile, y); });     \
        },                                                                                   \
        [](const Problem& p, const Book& book, int64_t n0, int64_t n1, Scratch& s) {         \
            with_dtype(p.z_dtype, [&](auto t) { search<decltype(t)>(p, book, n0, n1, s); }); \
        },                                                                                   \
        glance};

namespace scalar {
constexpr int LANES = 4, ROWS = 3;
VECTOR_TYPES
#ifdef __SSE2__
inline vint dot2(vint acc, vint x, vint y) { return acc + (vint)_mm_madd_epi16((__m128i)x, (__m128i)y); }
inline uint32_t below(vfloat a, vfloat b) { return _mm_movemask_ps(_mm_cmple_ps((__m128)a, (__m128)b)); }
#else
inline vint dot2(vint acc, vint x, vint y) { return acc + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16); }
inline uint32_t below(vfloat a, vfloat b) {
    return (a[0] <= b[0]) | (a[1] <= b[1]) << 1 | (a[2] <= b[2]) << 2 | (a[3] <= b[3]) << 3;
}
#endif
inline vfloat minus(vfloat h, vfloat a, vfloat b) { return h - a * b; }
#include "cpu/nearest_code_screen.h"
SCREEN("scalar")
}    // namespace scalar

#ifdef WIDE_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int LANES = 8, ROWS = 3;
VECTOR_TYPES
inline vint dot2(vint acc, vint x, vint y) { return acc + (vint)_mm256_madd_epi16((__m256i)x, (__m256i)y); }
inline uint32_t below(vfloat a, vfloat b) {
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LE_OQ));
}
inline vfloat minus(vfloat h, vfloat a, vfloat b) { return (vfloat)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)h); }
#include "cpu/nearest_code_screen.h"
SCREEN("avx2")
}    // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,prefer-vector-width=512")
namespace avx512 {
constexpr int LANES = 16, ROWS = 6;
VECTOR_TYPES
inline vint dot2(vint acc, vint x, vint y) { return (vint)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)x, (__m512i)y); }
inline uint32_t below(vfloat a, vfloat b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
inline vfloat minus(vfloat h, vfloat a, vfloat b) { return (vfloat)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)h); }
#include "cpu/nearest_code_screen.h"
SCREEN("avx512")
}    // namespace avx512
#pragma GCC pop_options
#endif

// The widest that this processor has, or the one that GENMINI_CPU names (if the processor has it)
const Screen& chosen() {
    const char* wanted = std::getenv("GENMINI_CPU");
    (void)wanted;
#ifdef WIDE_X86
    auto asked = [&](const Screen& screen) { return !wanted || !*wanted || std::strcmp(wanted, screen.name) == 0; };
    bool has512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    bool has256 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (has512 && asked(avx512::screen)) return avx512::screen;
    if (has256 && asked(avx2::screen)) return avx2::screen;
#endif
    return scalar::screen;
}

// ---- memory and threads ---------------------------------------------------------------------------------------------

struct Arena {                            // hands out the caller's memory; with base null it only counts
    char* base;
    int64_t used = 0;
    template <class T> T* take(int64_t count) {
        used = (used + 63) / 64 * 64;
        T* at = (T*)(base + used);
        used += count * int64_t(sizeof(T));
        return at;
    }
};

Book layout(Arena& arena, int64_t K, int64_t D) {
    Book book = {};
    int64_t padded = (K + MAX_TILE - 1) / MAX_TILE * MAX_TILE;
    book.W = (D + 1) / 2, book.S = (book.W + 15) / 16 * 16;
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
    s.groups = std::min<int64_t>(1024, (K + MAX_TILE - 1) / MAX_TILE * MAX_TILE / 4);
    s.rows = arena.take<Row>(BLOCK);
    s.x = arena.take<float>(D + 31);
    s.wide = arena.take<double>((FEW + 1) * (D + 7));
    s.X = arena.take<int16_t>(BLOCK * ((D + 31) / 32 * 32));
    s.hit = arena.take<int64_t>(BLOCK * s.groups / 4 + 1);
    s.low = arena.take<float>(BLOCK * s.groups);
    return s;
}

struct Environment {                      // round to nearest, keep subnormals: whatever the caller's thread was set to
    std::fenv_t saved;
    Environment() { std::fegetenv(&saved), std::fesetenv(FE_DFL_ENV); }
    ~Environment() { std::fesetenv(&saved); }
};

// The centre: of each coordinate the median over a few finite codes. The scale: a typical code's largest number becomes
// 1. False if no code is finite, or if doubles might over- or underflow in the sums that the screen stands for.
bool look_at(const Problem& p, Book& book, int64_t* sample, double* column) {
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
    return true;
}

}    // namespace

extern "C" int64_t nearest_code_cpu_workspace(int64_t, int64_t K, int64_t D, int threads) {
    Arena arena{nullptr};
    layout(arena, K, D);
    for (int t = 0; t < threads; t++) layout_scratch(arena, K, D);
    return arena.used + 64;
}

extern "C" const char* nearest_code_cpu_info() { return chosen().name; }

// index (N,) of z (N, D) and e (K, D), both contiguous. dtypes: 0 float32, 1 float16, 2 bfloat16, 3 float64. Returns 0,
// or 1 for a bad argument.
extern "C" int nearest_code_cpu(int z_dtype, int e_dtype, const void* z, const void* e, int64_t* index, int64_t N,
                                int64_t K, int64_t D, void* workspace, int threads) {
    if (z_dtype < 0 || z_dtype > 3 || e_dtype < 0 || e_dtype > 3 || N < 0 || K < 1 || D < 0 || threads < 1) return 1;
    Environment environment;                  // the centre too is computed in it
    Problem p = {z_dtype, e_dtype, z, e, index, N, K, D};
    Arena arena{(char*)((uintptr_t(workspace) + 63) / 64 * 64)};
    Book book = layout(arena, K, D);
    const Screen& screen = chosen();
    int64_t sample[SAMPLE];
    double column[SAMPLE];
    bool screened = N >= FEW && D <= WIDEST && look_at(p, book, sample, column);
    book.tiles = (K + screen.tile - 1) / screen.tile;
    book.delta = 1.01f * (D + 64) * 0x1p-24f;

    threads = int(std::max(1.0, std::min(double(threads), double(N) * K * D / WORTH_A_THREAD)));
    std::vector<Scratch> scratch;
    for (int t = 0; t < threads; t++) scratch.push_back(layout_scratch(arena, K, D));
    std::atomic<int64_t> next_tile{0}, packed{0}, next_row{0};
    Helpers::share(threads, [&](int t) {
        Environment environment;
        Scratch& s = scratch[t];
        Book mine = book;
        if (screened) {
            for (int64_t tile; (tile = next_tile++) < book.tiles; packed++) screen.pack(p, book, tile, s.x);
            while (packed < book.tiles) std::this_thread::yield();
            mine.sigma = *std::max_element(book.residual, book.residual + book.tiles);
        }
        for (int64_t n; (n = next_row.fetch_add(BLOCK)) < N;) {
            int64_t end = std::min(N, n + BLOCK);
            screened ? screen.search(p, mine, n, end, s) : screen.glance(p, n, end, s);
        }
    });
    return 0;
}
