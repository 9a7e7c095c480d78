// AVX-512 with BF16: vdpbf16ps adds two products for each of 16 outputs, twice what an FMA does.
// AMD Zen 5: two a cycle, and blends run on ports that they leave idle.
#include <immintrin.h>

#include <algorithm>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "../kernels/vec_avx512.inl"

#include "../kernels/activation.inl"
#include "avx512.inl"

inline __m512bh words(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
inline __m512bh two_words(const uint16_t* p) {
    int two;
    __builtin_memcpy(&two, p, sizeof two);
    return (__m512bh)_mm512_set1_epi32(two);
}

// Of 16 x 16 numbers of four bytes, in place.
inline void transpose_16x16(float* numbers) {
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_load_ps(numbers + 16 * i);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    const auto doubles = [](__m512 x) { return _mm512_castps_pd(x); };
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            a[i + 2 * j] =
                _mm512_castpd_ps(_mm512_unpacklo_pd(doubles(b[i + j]), doubles(b[i + j + 2])));
            a[i + 2 * j + 1] =
                _mm512_castpd_ps(_mm512_unpackhi_pd(doubles(b[i + j]), doubles(b[i + j + 2])));
        }
    // a[4 i + j]: lane l has column 4 l + j of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512 low = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88);
        const __m512 high = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
        const __m512 low_odd = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xdd);
        const __m512 high_odd = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xdd);
        _mm512_store_ps(numbers + 16 * j, _mm512_shuffle_f32x4(low, high, 0x88));
        _mm512_store_ps(numbers + 16 * (8 + j), _mm512_shuffle_f32x4(low, high, 0xdd));
        _mm512_store_ps(numbers + 16 * (4 + j), _mm512_shuffle_f32x4(low_odd, high_odd, 0x88));
        _mm512_store_ps(numbers + 16 * (12 + j), _mm512_shuffle_f32x4(low_odd, high_odd, 0xdd));
    }
}

#include "linear.inl"

}  // namespace

const Bf16Kernels kAvx512Bf16 = {"AVX512-BF16", linear, 128, Products::kBf16Vectors};

}  // namespace sparsebert
