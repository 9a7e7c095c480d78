// AVX2 without VNNI. vpmaddubsw would saturate (2 x 255 x 127 does not fit 16 bits), so bytes are
// widened to words for vpmaddwd, which is exact. Weights for which vpmaddubsw is exact too go to
// avx2_bytes.cpp.
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

// Widens the bytes at even places of each int32 and those at odd ones, so that sums need no
// horizontal adds. The compiler widens inputs once for all weights, and weights once for all
// inputs.
inline __m256i multiply_add(__m256i sums, __m256i inputs, __m256i weights) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(inputs, _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8));
    const __m256i odd =
        _mm256_madd_epi16(_mm256_srli_epi16(inputs, 8), _mm256_srai_epi16(weights, 8));
    return _mm256_add_epi32(_mm256_add_epi32(sums, even), odd);
}

#include "avx2.inl"
#include "rows.inl"

#include "attention.inl"

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
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * i),
                           _mm256_cvtepi8_epi16(load_16(values + 16 * i)));
}
inline __m256i add_products(__m256i sums, __m256i inputs, __m256i weights) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(inputs, weights));
}

#include "avx2_lookup.inl"

void linear_of_any(const Int8Linear& call, int tile_begin, int tile_end) {
    const bool small = call.weight->small_pairs;
    (small ? linear_of_small_pairs : linear)(call, tile_begin, tile_end);
}

void lookup_of_any(const Int8Linear& call, int tile_begin, int tile_end) {
    const bool small = call.weight->small_pairs;
    (small ? lookup_of_small_pairs : linear_by_lookup)(call, tile_begin, tile_end);
}

}  // namespace

const Int8Kernels kAvx2LookupInt8 = {
    "avx2 lookup", lookup_of_any, row_sums, attention, activate, gate, norm,
    split_heads,   add_scaled,    dot,      rotate,    gather,   true};
const Int8Kernels kAvx2Int8 = {"avx2", linear_of_any, row_sums,    attention,  activate,
                               gate,   norm,          split_heads, add_scaled, dot,
                               rotate, gather,        true};

}  // namespace sparsebert
