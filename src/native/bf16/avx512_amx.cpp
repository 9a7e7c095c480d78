// AVX-512 with AMX-BF16: a product of tiles, 16 outputs by 16 tokens by 32 inputs, takes 16 cycles
// and does 16 times what FMAs do in that time.
#include <immintrin.h>

#include <algorithm>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "../kernels/vec_avx512.inl"

#include "../kernels/activation.inl"
#include "../kernels/tile_amx.inl"
#include "avx512.inl"

inline void expand_row(const uint16_t* kept, uint32_t seconds, uint16_t* first, uint16_t* second) {
    const __m512i values = _mm512_load_si512(kept);
    _mm512_store_si512(first, _mm512_maskz_mov_epi16(~seconds, values));
    _mm512_store_si512(second, _mm512_maskz_mov_epi16(seconds, values));
}

#include "linear_on_tiles.inl"

}  // namespace

const Bf16Kernels kAvx512AmxBf16 = {"AMX-BF16", linear_on_tiles, 256, Products::kBf16Tiles};

}  // namespace sparsebert
