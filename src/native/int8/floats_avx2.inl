// AVX2: floats to bytes, horizontal sums and maxima, shared by the sets that multiply differently.
#pragma once

inline float lane_sum(Vec x) {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}
inline float largest(Vec x) {
    const __m128 half = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    const __m128 pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
}
// out[i] is the largest lane of x[i].
inline void largest_of_each(const Vec (&x)[16], float* out) {
    for (int i = 0; i < 16; ++i) out[i] = largest(x[i]);
}

// Packs the low eight bits of 16 int32 into bytes.
inline __m128i pack_bytes(__m256i low, __m256i high) {
    const __m256i mask = _mm256_set1_epi32(255);
    const __m256i words = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(_mm256_and_si256(low, mask), _mm256_and_si256(high, mask)), 0xD8);
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

inline void store_bytes(const Vec (&lanes)[2], uint8_t* out) {
    store_16(out, pack_bytes(_mm256_cvtps_epi32(lanes[0].v), _mm256_cvtps_epi32(lanes[1].v)));
}

// The same for 64 numbers.
inline void store_64_bytes(const Vec (&lanes)[4 * 2], uint8_t* out) {
    for (int i = 0; i < 4; ++i) {
        Vec quarter[2];
        for (int v = 0; v < 2; ++v) quarter[v] = lanes[i * 2 + v];
        store_bytes(quarter, out + i * 16);
    }
}

// round(x inverse) + offset of eight features.
inline __m256i quantize_8(const float* x, float inverse, int offset) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(inverse));
    return _mm256_add_epi32(_mm256_cvtps_epi32(scaled), _mm256_set1_epi32(offset));
}

// clip(round(x inverse) + zero, 0, 255) of 16 features, with the inputs of each group in their
// order.
inline void quantize_16(const float* x, float inverse, float zero, uint8_t* out) {
    const int offset = static_cast<int>(zero);
    // Packing saturates: to int16, then to uint8.
    const __m256i words = _mm256_permute4x64_epi64(
        _mm256_packs_epi32(quantize_8(x, inverse, offset), quantize_8(x + 8, inverse, offset)),
        0xD8);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    store_16(out, _mm_shuffle_epi8(bytes, order));
}

inline void quantize_64(const float* x, float inverse, float zero, uint8_t* out) {
    for (int i = 0; i < 64; i += 16) quantize_16(x + i, inverse, zero, out + i);
}

inline void quantize_signed_16(const float* x, float inverse, int offset, uint8_t* out) {
    store_16(out, pack_bytes(quantize_8(x, inverse, offset), quantize_8(x + 8, inverse, offset)));
}
