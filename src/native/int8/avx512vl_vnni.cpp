// AVX2 with 256-bit VNNI in AVX-512's encoding: the same kernels where the CPU lacks AVX-VNNI.
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
    return _mm256_dpbusd_epi32(sums, inputs, weights);
}

#include "avx2.inl"
#include "rows.inl"

#include "attention.inl"
#include "avx2_byte_lookup.inl"

}  // namespace

const Int8Kernels kAvx512VlVnniInt8 = {"avx2-vnni", linear, row_sums, attention,
                                       activate,    gate,   norm,     split_heads,
                                       add_scaled,  dot,    rotate,   gather};
const Int8Kernels kAvx512VlVnniLookupInt8 = {
    "avx2-vnni lookup", linear_by_lookup, row_sums, attention, activate, gate, norm,
    split_heads,        add_scaled,       dot,      rotate,    gather};

}  // namespace sparsebert
