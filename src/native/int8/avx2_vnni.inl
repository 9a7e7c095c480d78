// 256-bit vpdpbusd: half a tile per register. Included by files that have defined `multiply_add` in
// the encoding that their CPUs have: VEX (AVX-VNNI) or EVEX (AVX-512 VL).
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
#include "rows.inl"
#include "tiles.inl"

#include "attention.inl"
#include "linear.inl"

// Lookup tables hold bytes: a row's kept values of a group are one dword.
constexpr int kParts = 1, kFewestLookupTokens = 32;

inline void split_group(const uint64_t (&groups)[8], __m256i (&firsts)[1], __m256i (&seconds)[1]) {
    const __m256i low = load_32(groups), high = load_32(groups + 4);
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i a = _mm256_permutevar8x32_epi32(low, order);  // four firsts, four seconds
    const __m256i b = _mm256_permutevar8x32_epi32(high, order);
    firsts[0] = _mm256_permute2x128_si256(a, b, 0x20);
    seconds[0] = _mm256_permute2x128_si256(a, b, 0x31);
}
template <int Choice>
inline __m256i pick(__m256i first, __m256i second) {
    constexpr unsigned kMask = (Choice & 1) * 0xFFu | (Choice >> 1 & 1) * 0xFF00u |
                               (Choice >> 2 & 1) * 0xFF0000u | (Choice >> 3 & 1) * 0xFF000000u;
    return _mm256_blendv_epi8(first, second, _mm256_set1_epi32(static_cast<int>(kMask)));
}
inline void part_weights(const int8_t* values, uint8_t* out) {
    const Weights bytes = load_weights(values);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * i), bytes.v[i]);
}
inline __m256i add_products(__m256i sums, __m256i inputs, __m256i weights) {
    return multiply_add(sums, inputs, weights);
}

inline void linear_of_few(const Int8Linear& call, int tile_begin, int tile_end) {
    linear(call, tile_begin, tile_end);
}

#include "avx2_lookup.inl"
