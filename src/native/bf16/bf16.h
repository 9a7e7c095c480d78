// bf16: the upper half of an fp32 number, seven bits of fraction. `static`, so that the linker can
// never pick a copy compiled for AVX-512 for code that runs on plain x86-64.
#pragma once

#include <cstdint>

namespace sparsebert {

// Rounds to nearest, ties to even. NaN stays NaN.
static inline uint16_t to_bf16(float x) {
    uint32_t word;
    __builtin_memcpy(&word, &x, sizeof word);
    if ((word & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(word >> 16 | 0x40u);
    return static_cast<uint16_t>((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

static inline float from_bf16(uint16_t half) {
    const uint32_t word = static_cast<uint32_t>(half) << 16;
    float x;
    __builtin_memcpy(&x, &word, sizeof x);
    return x;
}

}  // namespace sparsebert
