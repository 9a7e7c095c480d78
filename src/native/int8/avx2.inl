// 256 bits: half a tile per register, and linear layers. Included by files that have defined
//   multiply_add(sums, inputs, weights)   adds to each int32 its four products of u8 by s8
#pragma once

constexpr int kTileVectors = kTileRows / Vec::kWidth;
constexpr int kInputOffset = 0;  // inputs are multiplied as they are
constexpr int kTiles = 1, kPairTokens = 4, kDenseTokens = 4;
constexpr int kAttentionTiles = 1, kAttentionTokens = 4;

// Rows 8 i to 8 i + 7 in register i.
struct Sums {
    __m256i v[2];
};
struct Weights {
    __m256i v[2];
};
using Four = __m256i;
struct Choice {  // a mask of bytes
    __m256i v[2];
};
struct Chosen {
    __m256i v[2];
};

inline __m256i load_32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline Sums zero_sums() { return {{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }
inline Sums load_sums(const int32_t* p) { return {{load_32(p), load_32(p + 8)}}; }
inline void store_sums(const Sums& x, int32_t* p) {
#pragma GCC unroll 4
    for (int i = 0; i < 2; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8 * i), x.v[i]);
}
inline Sums scaled_sums(const int32_t* p, int32_t factor) {
    Sums sums = load_sums(p);
#pragma GCC unroll 4
    for (__m256i& v : sums.v) v = _mm256_mullo_epi32(v, _mm256_set1_epi32(factor));
    return sums;
}
inline void to_floats(const Sums& x, Vec (&lanes)[2]) {
#pragma GCC unroll 4
    for (int i = 0; i < 2; ++i) lanes[i] = {_mm256_cvtepi32_ps(x.v[i])};
}

inline Weights load_weights(const int8_t* p) { return {{load_32(p), load_32(p + 32)}}; }
inline Four load_four(const uint8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
// Expands bit b of 32 to byte b: repeats each byte of the bits eight times, then tests one bit of
// each.
inline Choice load_choice(const uint64_t* p) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i each = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    Choice choice;
#pragma GCC unroll 4
    for (int i = 0; i < 2; ++i) {
        const __m256i bits =
            _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(*p >> (32 * i))), spread);
        choice.v[i] = _mm256_cmpeq_epi8(_mm256_and_si256(bits, each), each);
    }
    return choice;
}
inline Chosen choose(const Choice& choice, Four first, Four second) {
    return {{_mm256_blendv_epi8(first, second, choice.v[0]),
             _mm256_blendv_epi8(first, second, choice.v[1])}};
}
inline void dot(Sums& sums, Four inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 2; ++i) sums.v[i] = multiply_add(sums.v[i], inputs, weights.v[i]);
}
inline void dot(Sums& sums, const Chosen& inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 2; ++i) sums.v[i] = multiply_add(sums.v[i], inputs.v[i], weights.v[i]);
}

// Each row has four inputs of its own.
inline void dot_rows(Sums& sums, const uint8_t* inputs, const Weights& weights) {
    dot(sums, Chosen{{load_32(inputs), load_32(inputs + 32)}}, weights);
}

#include "tiles_x86.inl"

#include "floats_avx2.inl"

#include "blends.inl"
#include "tiles.inl"

#include "linear.inl"
