// AVX2 without VNNI, linear layers whose weights have small pairs: vpmaddubsw then multiplies bytes
// and adds two products exactly, in half the instructions that words take (avx2.cpp).
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

inline __m256i multiply_add(__m256i sums, __m256i inputs, __m256i weights) {
    const __m256i pairs = _mm256_maddubs_epi16(inputs, weights);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "avx2.inl"
#include "avx2_byte_lookup.inl"

}  // namespace

void linear_of_small_pairs(const Int8Linear& call, int tile_begin, int tile_end) {
    linear(call, tile_begin, tile_end);
}

void lookup_of_small_pairs(const Int8Linear& call, int tile_begin, int tile_end) {
    linear_by_lookup(call, tile_begin, tile_end);
}

}  // namespace sparsebert
