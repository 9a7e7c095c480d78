// Rounding to bf16 with AVX-512: vcvtne2ps2bf16 makes 32 words of two registers, those of the
// second operand first.
#pragma once

inline void interleave(const float* first, const float* second, uint16_t* out) {
    alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                        21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(second), _mm512_loadu_ps(first));
    _mm512_store_si512(out, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), (__m512i)both));
}
