// Transposes 16 x 16 four-byte numbers in 16 registers: 64 shuffles.
#pragma once

// a[i][j] becomes a[j][i].
[[gnu::always_inline]] inline void transpose_16x16(__m512i (&a)[16]) {
    __m512i b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    // a[4 i + j]: lane l has column 4 l + j of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512i low = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88);
        const __m512i high = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
        const __m512i low_odd = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xDD);
        const __m512i high_odd = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xDD);
        b[j] = _mm512_shuffle_i32x4(low, high, 0x88);
        b[8 + j] = _mm512_shuffle_i32x4(low, high, 0xDD);
        b[4 + j] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
        b[12 + j] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xDD);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = b[i];
}
