// The noise of kernels/_noise.py, one number after the other, in double from the same uniform numbers: what drivers
// compare csrc/cpu/noise.h with.
#pragma once
#include <cmath>
#include <cstdint>

inline float uniform_of(uint32_t word) { return float(word >> 31 ? ~word : word) * 4.6566127342e-10f; }

// Number d of row n
inline double normal_of(uint64_t seed, int64_t n, int64_t d) {
    uint64_t q = uint64_t(d) / 4;
    uint32_t w[4] = {uint32_t(q), uint32_t(q >> 32), uint32_t(n), uint32_t(n >> 32)};
    uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
    for (int turn = 0; turn < 10; turn++) {
        uint64_t p = uint64_t(w[0]) * 0xD2511F53, r = uint64_t(w[2]) * 0xCD9E8D57;
        uint32_t next[4] = {uint32_t(r >> 32) ^ w[1] ^ key[0], uint32_t(r), uint32_t(p >> 32) ^ w[3] ^ key[1],
                            uint32_t(p)};
        for (int i = 0; i < 4; i++) w[i] = next[i];
        key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
    }
    double radius = std::sqrt(-2 * std::log(std::fmax(double(uniform_of(w[d % 4 / 2])), 1e-7)));
    double angle = 2 * M_PI * uniform_of(w[2 + d % 4 / 2]);
    return radius * (d % 2 ? std::sin(angle) : std::cos(angle));
}
