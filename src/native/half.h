// Converts IEEE fp16 to fp32 with integer arithmetic. `static`, so that the linker can never pick a
// copy compiled for AVX-512 for code that runs on plain x86-64.
#pragma once

#include <cstdint>

namespace sparsebert {

static inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t rest = half & 0x7fffu;
    uint32_t word;
    float value;
    if (rest >= 0x7c00u) {  // infinity, NaN
        word = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
    } else if (rest >= 0x400u) {  // normal: the exponent's bias changes from 15 to 127
        word = sign | ((rest << 13) + (112u << 23));
    } else {  // subnormal: rest x 2^-24, exact in fp32
        value = static_cast<float>(rest) * 0x1p-24f;
        return sign ? -value : value;
    }
    __builtin_memcpy(&value, &word, sizeof value);
    return value;
}

}  // namespace sparsebert
