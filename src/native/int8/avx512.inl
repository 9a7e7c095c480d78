// What AVX-512 with VNNI does with 16 rows and with 16 features, shared by the sets that multiply
// differently.
#pragma once

#include "../kernels/vec_avx512.inl"

constexpr int kTileVectors = kTileRows / Vec::kWidth;

inline float lane_sum(Vec x) { return _mm512_reduce_add_ps(x.v); }
inline float largest(Vec x) { return _mm512_reduce_max_ps(x.v); }

using Sums = __m512i;
using Weights = __m512i;
using Four = __m512i;
using Choice = __mmask64;

inline Sums zero_sums() { return _mm512_setzero_si512(); }
inline Sums load_sums(const int32_t* p) { return _mm512_loadu_si512(p); }
inline void store_sums(Sums x, int32_t* p) { _mm512_storeu_si512(p, x); }
inline Sums scaled_sums(const int32_t* p, int32_t factor) {
    return _mm512_mullo_epi32(load_sums(p), _mm512_set1_epi32(factor));
}
inline Sums add_sums(Sums a, Sums b) { return _mm512_add_epi32(a, b); }
inline void to_floats(Sums x, Vec (&lanes)[1]) { lanes[0] = {_mm512_cvtepi32_ps(x)}; }

inline Weights load_weights(const int8_t* p) { return _mm512_loadu_si512(p); }
inline Choice load_choice(const uint64_t* p) { return *p; }
inline Four load_four(const uint8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
inline Four choose(Choice choice, Four first, Four second) {
    return _mm512_mask_blend_epi8(choice, first, second);
}
inline void dot(Sums& sums, Four inputs, Weights weights) {
    sums = _mm512_dpbusd_epi32(sums, inputs, weights);
}

// round(255 p) for p in [0, 1], already multiplied.
inline void store_bytes(const Vec (&lanes)[1], uint8_t* out) {
    const __m512i whole = _mm512_cvtps_epi32(lanes[0].v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(whole));
}

// clip(round(x inverse) + zero, 0, 255) of 16 features, the groups in their order.
inline void quantize_16(const float* x, float inverse, float zero, uint8_t* out) {
    __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
    whole = _mm512_add_epi32(whole, _mm512_set1_epi32(static_cast<int>(zero)));
    whole = _mm512_max_epi32(whole, _mm512_setzero_si512());
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_shuffle_epi8(_mm512_cvtusepi32_epi8(whole), order));
}

inline void quantize_signed_16(const float* x, float inverse, int offset, uint8_t* out) {
    const __m512i whole =
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(offset))));
}

#include "tiles_x86.inl"
