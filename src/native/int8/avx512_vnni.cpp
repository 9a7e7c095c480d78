// AVX-512 with VNNI: a register holds four inputs of 16 rows; vpdpbusd multiplies and adds 64
// bytes. Intel: two vpdpbusd per cycle, and a blend takes one of their ports. AMD: one per cycle on
// Zen 4, two on Zen 5, and blends run on ports that they leave idle.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels.h"

namespace sparsebert {
namespace {

#include "avx512.inl"

// Register block, tiles x tokens: 24 of 32 registers are accumulators, and there are few loads per
// multiply.
constexpr int kTiles = 3, kPairTokens = 8, kDenseTokens = 8;
constexpr int kAttentionTiles = 4, kAttentionTokens = 6;

#include "blends.inl"
#include "rows.inl"
#include "tiles.inl"

#include "attention.inl"
#include "linear.inl"
#include "lookup.inl"

}  // namespace

const Int8Kernels kAvx512VnniInt8 = {"avx512-vnni", linear, row_sums, attention,
                                     activate,      gate,   norm,     split_heads,
                                     add_scaled,    dot,    rotate,   gather};
const Int8Kernels kAvx512VnniLookupInt8 = {
    "avx512-vnni lookup", linear_by_lookup, row_sums, attention, activate, gate, norm,
    split_heads,          add_scaled,       dot,      rotate,    gather};

}  // namespace sparsebert
