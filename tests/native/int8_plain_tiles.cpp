// The int8 kernels for tile registers on tiles in plain memory, so that their blocking, remainders
// and epilogues are tested without AMX.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "bf16/bf16.h"
#include "half.h"
#include "testing.h"

namespace sparsebert {
namespace {

#include "int8/portable.inl"

constexpr int kAttentionTiles = 1, kAttentionTokens = 2;
constexpr int kFewestForTiles = 0;

inline void expand_group(const int8_t* values, uint64_t seconds, int8_t* out) {
    for (int i = 0; i < 64; ++i) {
        const bool second = seconds >> i & 1;
        out[i] = second ? 0 : values[i];
        out[64 + i] = second ? values[i] : 0;
    }
}

inline void split_sums(const int32_t* sums, int32_t* out) {
    std::memcpy(out, sums, sizeof(int32_t) * kTileRows);
}
inline Sums less_zero_point(const Sums& sums, int32_t zero, const int32_t* weight_sums) {
    return add_sums(sums, scaled_sums(weight_sums, -zero));
}

#include "int8/blends.inl"
#include "int8/expansion.inl"
#include "int8/rows.inl"
#include "int8/tiles.inl"
#include "tile_plain.inl"

#include "int8/attention_on_tiles.inl"
#include "int8/linear_on_tiles.inl"

}  // namespace

const Int8Kernels kPlainTilesInt8 = {"plain tiles", linear_on_tiles,
                                     row_sums,      attention_on_tiles,
                                     activate,      gate,
                                     norm,          split_heads,
                                     add_scaled,    dot,
                                     rotate,        gather};

}  // namespace sparsebert
