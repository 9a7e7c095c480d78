// AVX2 without VNNI. vpmaddubsw would saturate (2 x 255 x 127 does not fit 16 bits), so bytes are
// widened to words for vpmaddwd, which is exact: four multiplies and two adds for each int32.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels.h"

namespace sparsebert {
namespace {

#include "../kernels/vec_avx2.inl"

constexpr int kTileVectors = kTileRows / Vec::kWidth;
constexpr int kInputOffset = 0;  // inputs are multiplied as they are
constexpr int kTiles = 1, kPairTokens = 2, kDenseTokens = 2;
constexpr int kAttentionTiles = 1, kAttentionTokens = 2;

// Rows 4 i to 4 i + 3 in register i, each as two partial sums.
struct Sums {
    __m256i v[4];
};
// Rows 4 i to 4 i + 3 in register i, as words.
struct Weights {
    __m256i v[4];
};
using Four = __m256i;  // four words, repeated four times
struct Choice {        // a mask of words
    __m256i v[4];
};
struct Chosen {
    __m256i v[4];
};

inline Sums zero_sums() {
    const __m256i zero = _mm256_setzero_si256();
    return {{zero, zero, zero, zero}};
}
inline Sums load_sums(const int32_t* p) {
    Sums sums;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        sums.v[i] =
            _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 4 * i)));
    return sums;
}
inline Sums scaled_sums(const int32_t* p, int32_t factor) {
    Sums sums = load_sums(p);
#pragma GCC unroll 4
    for (__m256i& v : sums.v) v = _mm256_mullo_epi32(v, _mm256_set1_epi32(factor));
    return sums;
}
// Rows 8 i to 8 i + 7.
inline __m256i whole_sums(const Sums& x, int i) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(x.v[2 * i], x.v[2 * i + 1]), 0xD8);
}
inline void store_sums(const Sums& x, int32_t* p) {
#pragma GCC unroll 4
    for (int i = 0; i < 2; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8 * i), whole_sums(x, i));
}
inline void to_floats(const Sums& x, Vec (&lanes)[2]) {
#pragma GCC unroll 4
    for (int i = 0; i < 2; ++i) lanes[i] = {_mm256_cvtepi32_ps(whole_sums(x, i))};
}

inline Weights load_weights(const int8_t* p) {
    Weights weights;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        weights.v[i] =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i)));
    return weights;
}
inline Four load_four(const uint8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
}
inline Choice load_choice(const uint64_t* p) {
    const __m256i each = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096,
                                           8192, 16384, -32768);
    Choice choice;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m256i bits = _mm256_set1_epi16(static_cast<short>(*p >> (16 * i)));
        choice.v[i] = _mm256_cmpeq_epi16(_mm256_and_si256(bits, each), each);
    }
    return choice;
}
inline Chosen choose(const Choice& choice, Four first, Four second) {
    Chosen chosen;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) chosen.v[i] = _mm256_blendv_epi8(first, second, choice.v[i]);
    return chosen;
}
inline void dot(Sums& sums, Four inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        sums.v[i] = _mm256_add_epi32(sums.v[i], _mm256_madd_epi16(inputs, weights.v[i]));
}
inline void dot(Sums& sums, const Chosen& inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        sums.v[i] = _mm256_add_epi32(sums.v[i], _mm256_madd_epi16(inputs.v[i], weights.v[i]));
}

// Each row has four inputs of its own.
inline void dot_rows(Sums& sums, const uint8_t* inputs, const Weights& weights) {
    Chosen words;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        words.v[i] = _mm256_cvtepu8_epi16(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(inputs + 16 * i)));
    dot(sums, words, weights);
}

#include "tiles_x86.inl"

#include "floats_avx2.inl"

#include "blends.inl"
#include "rows.inl"
#include "tiles.inl"

#include "attention.inl"
#include "linear.inl"

// Expands the kept values of a group, [16][4], to its first and its second inputs, with zeros for
// what is not kept.
inline void expand_group(const int8_t* values, uint64_t seconds, int8_t* out) {
    const __m256i each = _mm256_set1_epi64x(0x8040201008040201);
    const __m256i byte =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
        const __m256i bits =
            _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(seconds >> 32 * half)), byte);
        const __m256i mask = _mm256_cmpeq_epi8(_mm256_and_si256(bits, each), each);
        const __m256i kept =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + 32 * half));
        __m256i* to = reinterpret_cast<__m256i*>(out + 32 * half);
        _mm256_storeu_si256(to, _mm256_andnot_si256(mask, kept));
        _mm256_storeu_si256(to + 2, _mm256_and_si256(mask, kept));
    }
}

// Without vpdpbusd a blend of words costs as much as the multiply and add that it saves, and twice
// as much on Intel: from this many tokens on, 1:2 weights are expanded, a tile at a time, and take
// the dense kernel's time (0.7 of that of blends on an Intel Xeon).
constexpr int kFewestToExpand = 8;

void linear_expanding(const Int8Linear& call, int tile_begin, int tile_end) {
    const Int8Weight& w = *call.weight;
    if (w.layout != Int8Layout::kPairs || call.tokens < kFewestToExpand)
        return linear(call, tile_begin, tile_end);
    for (int tile = tile_begin; tile < tile_end; ++tile) {
        const size_t first = static_cast<size_t>(tile) * w.groups();
        for (int g = 0; g < w.groups(); ++g)
            expand_group(w.values + (first + g) * 64, w.bits[first + g], call.scratch + g * 128);
        each_run<kDenseTokens>(call.tokens, [&](auto length, int token, int runs) {
            dense_tiles(LinearTile<1, length()>{call, tile, token}, call.scratch, runs);
        });
    }
}

// Lookup tables hold words: two of a row's kept values per register.
constexpr int kParts = 2, kFewestLookupTokens = 16;

// Transposes the four dwords of each of eight tokens.
inline void split_group(const uint64_t (&groups)[8], __m256i (&firsts)[2], __m256i (&seconds)[2]) {
    __m256i tokens[4];  // i and i + 4: words of pairs 0 and 1, 2 and 3; first inputs, then second
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        tokens[i] = _mm256_cvtepu8_epi16(_mm_set_epi64x(static_cast<long long>(groups[i + 4]),
                                                        static_cast<long long>(groups[i])));
    const __m256i a = _mm256_unpacklo_epi32(tokens[0], tokens[1]);
    const __m256i b = _mm256_unpackhi_epi32(tokens[0], tokens[1]);
    const __m256i c = _mm256_unpacklo_epi32(tokens[2], tokens[3]);
    const __m256i d = _mm256_unpackhi_epi32(tokens[2], tokens[3]);
    firsts[0] = _mm256_unpacklo_epi64(a, c);
    firsts[1] = _mm256_unpackhi_epi64(a, c);
    seconds[0] = _mm256_unpacklo_epi64(b, d);
    seconds[1] = _mm256_unpackhi_epi64(b, d);
}
template <int Choice>
inline __m256i pick(__m256i first, __m256i second) {
    return _mm256_blend_epi16(first, second, Choice * 0x55);
}
inline void part_weights(const int8_t* values, uint8_t* out) {
    const Weights words = load_weights(values);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * i), words.v[i]);
}
inline __m256i add_products(__m256i sums, __m256i inputs, __m256i weights) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(inputs, weights));
}

inline void linear_of_few(const Int8Linear& call, int tile_begin, int tile_end) {
    linear_expanding(call, tile_begin, tile_end);
}

#include "avx2_lookup.inl"

}  // namespace

const Int8Kernels kAvx2LookupInt8 = {
    "avx2 lookup", linear_by_lookup, row_sums,   attention, activate, gate,
    norm,          split_heads,      add_scaled, dot,       rotate,   gather};
const Int8Kernels kAvx2Int8 = {"avx2", linear_expanding, row_sums,   attention, activate, gate,
                               norm,   split_heads,      add_scaled, dot,       rotate,   gather};

}  // namespace sparsebert
