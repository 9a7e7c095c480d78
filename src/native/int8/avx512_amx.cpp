// AVX-512 with AMX. A product of tiles, 16 tokens by 16 outputs by 64 inputs, takes 16 cycles and
// does eight times what vpdpbusd does in that time, so that only the work between the products is
// left to save. A tile cannot skip zeros: 1:2 weights save reading, not multiplying. Intel: a tile
// is loaded at two cache lines per cycle from L1, at one in two cycles from L2; a masked move of 64
// bytes takes one of two ports, and so do most steps of an epilogue.
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
// Tokens x values per head from which attention is faster on tiles. Microseconds per head on an
// Intel Xeon, with vectors and on tiles: 128 tokens of 32 values 11 and 12, of 64 values 14.8 and
// 13.6; 384 tokens of 32 values 82 and 79, of 64 values 115 and 92.
constexpr int kFewestForTiles = 128 * 64;

// Expands the kept values of a group, [16][4], to its first and its second inputs, with zeros for
// what is not kept.
inline void expand_group(const int8_t* values, uint64_t seconds, int8_t* out) {
    __m512i kept = _mm512_loadu_si512(values);
    asm("" : "+v"(kept));  // loaded once: a masked load costs more than a masked move
    const __m512i second = _mm512_maskz_mov_epi8(seconds, kept);
    _mm512_store_si512(out, _mm512_xor_si512(kept, second));
    _mm512_store_si512(out + 64, second);
}

// Splits -sum into two words, the low 7 bits and the rest, so that a single vpdpwssd adds -zero x
// sum: it multiplies them by the zero point and by 128 times the zero point. The rest fits a word,
// because a layer has at most 32767 inputs.
inline void split_sums(const int32_t* sums, int32_t* words) {
    const __m512i minus = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(sums));
    const __m512i low = _mm512_and_si512(minus, _mm512_set1_epi32(127));
    const __m512i high = _mm512_slli_epi32(_mm512_srai_epi32(minus, 7), 16);
    _mm512_storeu_si512(words, _mm512_or_si512(low, high));
}
inline Sums less_zero_point(Sums sums, int32_t zero, const int32_t* words) {
    constexpr int32_t kOnceAnd128Times = 128 << 16 | 1;
    return _mm512_dpwssd_epi32(sums, _mm512_set1_epi32(zero * kOnceAnd128Times), load_sums(words));
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
