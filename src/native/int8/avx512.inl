// AVX-512 with VNNI: operations on 16 rows and on 16 features, shared by the sets that multiply
// differently.
#pragma once

#include "../kernels/vec_avx512.inl"

constexpr int kTileVectors = kTileRows / Vec::kWidth;
constexpr int kInputOffset = 0;  // inputs are multiplied as they are

inline float lane_sum(Vec x) { return _mm512_reduce_add_ps(x.v); }
inline float largest(Vec x) { return _mm512_reduce_max_ps(x.v); }
// out[i] is the largest lane of x[i]: vectors are merged two at a time, each halved, which takes 45
// instructions instead of 16 x 8.
inline void largest_of_each(const Vec (&x)[16], float* out) {
    const auto pairs = [&](int i) {
        const __m512 a = x[i].v, b = x[i + 1].v;
        return _mm512_castps_pd(_mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    };
    const auto fours = [&](int i) {
        const __m512d a = pairs(i), b = pairs(i + 2);
        return _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    };
    const auto eights = [&](int i) {
        const __m512 a = fours(i), b = fours(i + 4);
        return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    };
    const __m512 a = eights(0), b = eights(8);
    _mm512_storeu_ps(
        out, _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD)));
}

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

// Each row has four inputs of its own.
inline void dot_rows(Sums& sums, const uint8_t* inputs, Weights weights) {
    dot(sums, _mm512_loadu_si512(inputs), weights);
}

// Rounds numbers from 0 to 255 to bytes.
inline void store_bytes(const Vec (&lanes)[1], uint8_t* out) {
    const __m512i whole = _mm512_cvtps_epi32(lanes[0].v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(whole));
}

// Restores the order of bytes that were packed from four vectors in two steps: half as many
// instructions as packing each vector alone.
inline __m512i in_order(__m512i packed) {
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), packed);
}

// The same for 64 numbers.
inline void store_64_bytes(const Vec (&lanes)[4], uint8_t* out) {
    const __m512i low =
        _mm512_packs_epi32(_mm512_cvtps_epi32(lanes[0].v), _mm512_cvtps_epi32(lanes[1].v));
    const __m512i high =
        _mm512_packs_epi32(_mm512_cvtps_epi32(lanes[2].v), _mm512_cvtps_epi32(lanes[3].v));
    _mm512_storeu_si512(out, in_order(_mm512_packus_epi16(low, high)));
}

// clip(round(x inverse) + zero, 0, 255) of 16 features, with the inputs of each group in their
// order.
inline void quantize_16(const float* x, float inverse, float zero, uint8_t* out) {
    __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
    whole = _mm512_add_epi32(whole, _mm512_set1_epi32(static_cast<int>(zero)));
    whole = _mm512_max_epi32(whole, _mm512_setzero_si512());
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_shuffle_epi8(_mm512_cvtusepi32_epi8(whole), order));
}

inline void quantize_64(const float* x, float inverse, float zero, uint8_t* out) {
    const __m512 factor = _mm512_set1_ps(inverse);
    const auto whole = [&](int i) {
        return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i * 16), factor));
    };
    const __m512i zero_points = _mm512_set1_epi16(static_cast<int16_t>(zero));
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(whole(0), whole(1)), zero_points);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(whole(2), whole(3)), zero_points);
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    _mm512_storeu_si512(out, _mm512_shuffle_epi8(in_order(_mm512_packus_epi16(low, high)), order));
}

inline void quantize_signed_16(const float* x, float inverse, int offset, uint8_t* out) {
    const __m512i whole =
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(offset))));
}

// Rows first, first + step, ... of 16 bytes, in four lanes; rows from `count` on are zero.
inline __m512i four_rows(const uint8_t* rows, size_t stride, int first, int step, int count) {
    __m512i lanes = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int lane = 0; lane < 4; ++lane) {
        const int row = first + lane * step;
        if (row >= count) break;
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + row * stride));
        lanes = _mm512_mask_broadcast_i32x4(lanes, static_cast<__mmask16>(0xF << (4 * lane)), x);
    }
    return lanes;
}

// Transposes `count` keys of `depth` bytes, `stride` apart, to [depth / 4][16 keys][4]; missing
// keys are zero. offsets[key] = -128 x the sum of its bytes.
inline void transpose_keys(const uint8_t* keys, size_t stride, int count, int depth, int8_t* out,
                           int32_t* offsets) {
    const auto transpose = [&](int keys_here) {
        __m512i sums = _mm512_setzero_si512();
        for (int d = 0; d < depth; d += 16) {
            __m512i rows[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) rows[i] = four_rows(keys + d, stride, i, 4, keys_here);
            const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]);
            const __m512i b = _mm512_unpackhi_epi32(rows[0], rows[1]);
            const __m512i c = _mm512_unpacklo_epi32(rows[2], rows[3]);
            const __m512i e = _mm512_unpackhi_epi32(rows[2], rows[3]);
            const __m512i fours[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c),
                                      _mm512_unpacklo_epi64(b, e), _mm512_unpackhi_epi64(b, e)};
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                _mm512_storeu_si512(out + (d / 4 + i) * 64, fours[i]);
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(-128), fours[i]);  // 128, as u8
            }
        }
        _mm512_storeu_si512(offsets, _mm512_sub_epi32(_mm512_setzero_si512(), sums));
    };
    if (count >= 16)
        transpose(16);
    else
        transpose(count);
}

// Interleaves `count` (1 to 4) rows of `depth` bytes to [depth / 16][16 columns][4 rows]; column
// tiles are `tile` bytes apart.
inline void interleave_values(const uint8_t* values, size_t stride, int count, int depth,
                              int8_t* out, size_t tile) {
    const __m512i columns = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const auto interleave = [&](int rows) {
        for (int d = 0; d < depth; d += 16, out += tile) {
            const __m512i fours =
                _mm512_permutexvar_epi32(columns, four_rows(values + d, stride, 0, 1, rows));
            _mm512_storeu_si512(out, _mm512_shuffle_epi8(fours, order));
        }
    };
    if (count >= 4)
        interleave(4);
    else
        interleave(count);
}
