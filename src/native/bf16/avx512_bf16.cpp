// AVX-512 with BF16: vdpbf16ps adds two products for each of 16 outputs, twice what an FMA does.
// AMD Zen 5: two per cycle, and blends run on ports that they leave idle.
#include <immintrin.h>

#include <algorithm>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "../kernels/vec_avx512.inl"

#include "../kernels/activation.inl"
#include "../kernels/transpose_avx512.inl"
#include "avx512.inl"

inline __m512bh words(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
inline __m512bh two_words(const uint16_t* p) {
    int two;
    __builtin_memcpy(&two, p, sizeof two);
    return (__m512bh)_mm512_set1_epi32(two);
}

#include "linear.inl"

}  // namespace

const Bf16Kernels kAvx512Bf16 = {"AVX512-BF16", linear, 128, Products::kBf16Vectors};

}  // namespace sparsebert
