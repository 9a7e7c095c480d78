// SSE4.1 and SSSE3, linear layers whose weights have small pairs: as in avx2_bytes.cpp.
#include <smmintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels.h"

namespace sparsebert {
namespace {

#include "vec_sse41.inl"

inline __m128i multiply_add(__m128i sums, __m128i inputs, __m128i weights) {
    const __m128i pairs = _mm_maddubs_epi16(inputs, weights);
    return _mm_add_epi32(sums, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
}

#include "sse41.inl"

}  // namespace

void linear_of_small_pairs_sse41(const Int8Linear& call, int tile_begin, int tile_end) {
    linear(call, tile_begin, tile_end);
}

}  // namespace sparsebert
