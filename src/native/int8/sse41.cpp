// SSE4.1 and SSSE3, for x86-64 CPUs without AVX2: Intel's before 2013 and its small ones (Celeron,
// Pentium and Atom) until 2022. As in avx2.cpp, bytes are widened to words, because pmaddubsw would
// saturate; weights for which it is exact go to sse41_bytes.cpp.
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

// Bytes at even places of each int32 and those at odd ones, so that sums need no horizontal adds.
inline __m128i multiply_add(__m128i sums, __m128i inputs, __m128i weights) {
    const __m128i even = _mm_madd_epi16(_mm_and_si128(inputs, _mm_set1_epi16(255)),
                                        _mm_srai_epi16(_mm_slli_epi16(weights, 8), 8));
    const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(inputs, 8), _mm_srai_epi16(weights, 8));
    return _mm_add_epi32(_mm_add_epi32(sums, even), odd);
}

#include "sse41.inl"

#include "rows.inl"

#include "attention.inl"

void linear_of_any(const Int8Linear& call, int tile_begin, int tile_end) {
    const bool small = call.weight->small_pairs;
    (small ? linear_of_small_pairs_sse41 : linear)(call, tile_begin, tile_end);
}

}  // namespace

const Int8Kernels kSse41Int8 = {"sse4.1", linear_of_any, row_sums,    attention,  activate,
                                gate,     norm,          split_heads, add_scaled, dot,
                                rotate,   gather,        true};

}  // namespace sparsebert
