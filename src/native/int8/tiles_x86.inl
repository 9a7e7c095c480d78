// Lays out rows of bytes as tiles of weights, with 128-bit instructions that every x86-64 CPU has.
#pragma once

inline __m128i load_16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline void store_16(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }

// Transposes `count` keys of `depth` bytes, `stride` apart, to [depth / 4][16 keys][4]; missing
// keys are zero. offsets[key] = -128 x the sum of its bytes.
inline void transpose_keys(const uint8_t* keys, size_t stride, int count, int depth, int8_t* out,
                           int32_t* offsets) {
    const __m128i zero = _mm_setzero_si128(), ones = _mm_set1_epi16(1);
    for (int first = 0; first < 16; first += 4) {
        __m128i sums = zero;
        for (int d = 0; d < depth; d += 16) {
            __m128i rows[4];
            for (int i = 0; i < 4; ++i)
                rows[i] = first + i < count ? load_16(keys + (first + i) * stride + d) : zero;
            const __m128i a = _mm_unpacklo_epi32(rows[0], rows[1]);
            const __m128i b = _mm_unpackhi_epi32(rows[0], rows[1]);
            const __m128i c = _mm_unpacklo_epi32(rows[2], rows[3]);
            const __m128i e = _mm_unpackhi_epi32(rows[2], rows[3]);
            const __m128i fours[4] = {_mm_unpacklo_epi64(a, c), _mm_unpackhi_epi64(a, c),
                                      _mm_unpacklo_epi64(b, e), _mm_unpackhi_epi64(b, e)};
            for (int i = 0; i < 4; ++i) {
                store_16(out + (d / 4 + i) * 64 + first * 4, fours[i]);
                const __m128i even = _mm_srai_epi16(_mm_slli_epi16(fours[i], 8), 8);
                const __m128i odd = _mm_srai_epi16(fours[i], 8);
                sums = _mm_add_epi32(sums, _mm_madd_epi16(_mm_add_epi16(even, odd), ones));
            }
        }
        store_16(offsets + first, _mm_sub_epi32(zero, _mm_slli_epi32(sums, 7)));
    }
}

// Interleaves `count` (1 to 4) rows of `depth` bytes to [depth / 16][16 columns][4 rows]; column
// tiles are `tile` bytes apart.
inline void interleave_values(const uint8_t* values, size_t stride, int count, int depth,
                              int8_t* out, size_t tile) {
    for (int d = 0; d < depth; d += 16, out += tile) {
        __m128i rows[4];
        for (int i = 0; i < 4; ++i)
            rows[i] = i < count ? load_16(values + i * stride + d) : _mm_setzero_si128();
        const __m128i low[2] = {_mm_unpacklo_epi8(rows[0], rows[1]),
                                _mm_unpacklo_epi8(rows[2], rows[3])};
        const __m128i high[2] = {_mm_unpackhi_epi8(rows[0], rows[1]),
                                 _mm_unpackhi_epi8(rows[2], rows[3])};
        store_16(out, _mm_unpacklo_epi16(low[0], low[1]));
        store_16(out + 16, _mm_unpackhi_epi16(low[0], low[1]));
        store_16(out + 32, _mm_unpacklo_epi16(high[0], high[1]));
        store_16(out + 48, _mm_unpackhi_epi16(high[0], high[1]));
    }
}
