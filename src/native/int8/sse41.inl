// 128 bits: a quarter of a tile per register, and linear layers. Included by files that have
// defined
//   multiply_add(sums, inputs, weights)   adds to each int32 its four products of u8 by s8
#pragma once

constexpr int kTileVectors = kTileRows / Vec::kWidth;
constexpr int kInputOffset = 0;  // inputs are multiplied as they are
constexpr int kTiles = 1, kPairTokens = 8, kDenseTokens = 8;
constexpr int kAttentionTiles = 1, kAttentionTokens = 8;

#include "tiles_x86.inl"

// Rows 4 i to 4 i + 3 in register i.
struct Sums {
    __m128i v[4];
};
struct Weights {
    __m128i v[4];
};
using Four = __m128i;

inline Sums zero_sums() {
    const __m128i zero = _mm_setzero_si128();
    return {{zero, zero, zero, zero}};
}
inline Sums load_sums(const int32_t* p) {
    return {{load_16(p), load_16(p + 4), load_16(p + 8), load_16(p + 12)}};
}
inline void store_sums(const Sums& x, int32_t* p) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) store_16(p + 4 * i, x.v[i]);
}
inline Sums scaled_sums(const int32_t* p, int32_t factor) {
    Sums sums = load_sums(p);
#pragma GCC unroll 4
    for (__m128i& v : sums.v) v = _mm_mullo_epi32(v, _mm_set1_epi32(factor));
    return sums;
}
inline void to_floats(const Sums& x, Vec (&lanes)[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) lanes[i] = {_mm_cvtepi32_ps(x.v[i])};
}

inline Weights load_weights(const int8_t* p) {
    return {{load_16(p), load_16(p + 16), load_16(p + 32), load_16(p + 48)}};
}
inline Four load_four(const uint8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm_set1_epi32(four);
}
inline void dot(Sums& sums, Four inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums.v[i] = multiply_add(sums.v[i], inputs, weights.v[i]);
}

// Each row has four inputs of its own.
inline void dot_rows(Sums& sums, const uint8_t* inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        sums.v[i] = multiply_add(sums.v[i], load_16(inputs + 16 * i), weights.v[i]);
}

// The positions of four rows' inputs in their group of eight: 0 to 3, or 4 to 7 where the bit is
// set. Repeats each byte of the 16 bits eight times, then tests one bit of each.
inline __m128i load_positions(const uint8_t* bits) {
    const __m128i each = _mm_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    const __m128i spread = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    uint16_t word;
    std::memcpy(&word, bits, sizeof word);
    const __m128i repeated = _mm_shuffle_epi8(_mm_cvtsi32_si128(word), spread);
    const __m128i second = _mm_cmpeq_epi8(_mm_and_si128(repeated, each), each);
    return _mm_add_epi8(_mm_set1_epi32(0x03020100), _mm_and_si128(second, _mm_set1_epi8(4)));
}

// As in tiles.inl and blends.inl, but four rows at a time, whose sums of eight tokens fit the
// registers. A shuffle selects each row's four of eight inputs.
template <int R, int T, typename Step>
[[gnu::always_inline]] inline void sum_quarters(Sums (&sums)[R][T], Step step) {
    for (int r = 0; r < R; ++r)
        for (int i = 0; i < 4; ++i) {
            __m128i parts[T];
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) parts[t] = sums[r][t].v[i];
            step(r, i, parts);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) sums[r][t].v[i] = parts[t];
        }
}

template <int R, int T>
[[gnu::always_inline]] inline void sum_pairs(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint64_t* bits,
                                             size_t bits_tile, const uint8_t* x, size_t stride,
                                             int groups) {
    sum_quarters(sums, [&](int r, int i, __m128i(&parts)[T]) {
        const int8_t* four = values + r * values_tile + 16 * i;
        const uint8_t* bit = reinterpret_cast<const uint8_t*>(bits + r * bits_tile) + 2 * i;
        const uint8_t* inputs = x;
        for (int g = 0; g < groups; ++g, four += 64, bit += 8, inputs += 8) {
            const __m128i weights = load_16(four), positions = load_positions(bit);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) {
                const __m128i group =
                    _mm_loadl_epi64(reinterpret_cast<const __m128i*>(inputs + t * stride));
                parts[t] = multiply_add(parts[t], _mm_shuffle_epi8(group, positions), weights);
            }
        }
    });
}

template <int R, int T, bool Prefetch = false>
[[gnu::always_inline]] inline void sum_dense(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint8_t* x, size_t stride,
                                             int fours) {
    sum_quarters(sums, [&](int r, int i, __m128i(&parts)[T]) {
        const int8_t* four = values + r * values_tile + 16 * i;
        const uint8_t* inputs = x;
        for (int step = 0; step < fours; ++step, four += 64, inputs += 4) {
            const __m128i weights = load_16(four);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t)
                parts[t] = multiply_add(parts[t], load_four(inputs + t * stride), weights);
        }
    });
}

inline float lane_sum(Vec x) {
    const __m128 pair = _mm_add_ps(x.v, _mm_movehl_ps(x.v, x.v));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}
inline float largest(Vec x) {
    const __m128 pair = _mm_max_ps(x.v, _mm_movehl_ps(x.v, x.v));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}
// out[i] is the largest lane of x[i].
inline void largest_of_each(const Vec (&x)[16], float* out) {
    for (int i = 0; i < 16; ++i) out[i] = largest(x[i]);
}

// Packs the low eight bits of 16 int32 into bytes.
inline __m128i pack_bytes(const __m128i (&x)[4]) {
    const __m128i mask = _mm_set1_epi32(255);
    __m128i words[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
        words[i] =
            _mm_packs_epi32(_mm_and_si128(x[2 * i], mask), _mm_and_si128(x[2 * i + 1], mask));
    return _mm_packus_epi16(words[0], words[1]);
}

inline void store_bytes(const Vec (&lanes)[4], uint8_t* out) {
    __m128i whole[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) whole[i] = _mm_cvtps_epi32(lanes[i].v);
    store_16(out, pack_bytes(whole));
}

// The same for 64 numbers.
inline void store_64_bytes(const Vec (&lanes)[4 * 4], uint8_t* out) {
    for (int i = 0; i < 4; ++i)
        store_bytes({lanes[4 * i], lanes[4 * i + 1], lanes[4 * i + 2], lanes[4 * i + 3]},
                    out + i * 16);
}

// round(x inverse) + offset of 16 features.
inline void round_16(const float* x, float inverse, int offset, __m128i (&out)[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m128 scaled = _mm_mul_ps(_mm_loadu_ps(x + 4 * i), _mm_set1_ps(inverse));
        out[i] = _mm_add_epi32(_mm_cvtps_epi32(scaled), _mm_set1_epi32(offset));
    }
}

// clip(round(x inverse) + zero, 0, 255) of 16 features, with the inputs of each group in their
// order. Packing saturates: to int16, then to uint8.
inline void quantize_16(const float* x, float inverse, float zero, uint8_t* out) {
    __m128i whole[4];
    round_16(x, inverse, static_cast<int>(zero), whole);
    const __m128i bytes =
        _mm_packus_epi16(_mm_packs_epi32(whole[0], whole[1]), _mm_packs_epi32(whole[2], whole[3]));
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    store_16(out, _mm_shuffle_epi8(bytes, order));
}

inline void quantize_64(const float* x, float inverse, float zero, uint8_t* out) {
    for (int i = 0; i < 64; i += 16) quantize_16(x + i, inverse, zero, out + i);
}

inline void quantize_signed_16(const float* x, float inverse, int offset, uint8_t* out) {
    __m128i whole[4];
    round_16(x, inverse, offset, whole);
    store_16(out, pack_bytes(whole));
}

#include "linear.inl"
