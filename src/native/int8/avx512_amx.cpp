// AVX-512 with AMX. A product of tiles, 16 tokens by 16 outputs by 64 inputs, takes 16 cycles:
// eight times what vpdpbusd does in that time, so that everything between the products is what is
// left to save. A tile cannot skip zeros: 1:2 weights save the reading, not the multiplying. Intel:
// two lines a cycle from L1 into a tile, a line in two from L2; a masked move of 64 bytes takes one
// of two ports, and so do most steps of an epilogue.
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

#include "avx512.inl"

constexpr int kAttentionTiles = 4, kAttentionTokens = 6;
// Tokens x values of a head from which attention is faster on tiles. On an Intel Xeon, microseconds
// a head with vectors and on tiles: 128 tokens of 32 values 11 and 12, of 64 14.8 and 13.6; 384
// tokens of 32 values 82 and 79, of 64 115 and 92.
constexpr int kFewestForTiles = 128 * 64;

// The kept values of a group, [16][4], to its first inputs and its second, zeros between.
inline void expand_group(const int8_t* values, uint64_t seconds, int8_t* out) {
    const __m512i kept = _mm512_loadu_si512(values);
    const __m512i second = _mm512_maskz_mov_epi8(seconds, kept);
    _mm512_store_si512(out, _mm512_xor_si512(kept, second));
    _mm512_store_si512(out + 64, second);
}

#include "../kernels/tile_amx.inl"
#include "blends.inl"
#include "expansion.inl"
#include "rows.inl"
#include "tiles.inl"

#include "attention_on_tiles.inl"
#include "linear_on_tiles.inl"

}  // namespace

const Int8Kernels kAvx512AmxInt8 = {"avx512-amx", linear_on_tiles,
                                    row_sums,     attention_on_tiles,
                                    activate,     gate,
                                    norm,         split_heads,
                                    add_scaled,   dot,
                                    rotate,       gather};

}  // namespace sparsebert
