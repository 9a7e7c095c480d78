// The bf16 kernels for tile registers on tiles in plain memory, so that their blocking and
// remainders are tested without AMX.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "bf16/bf16.h"
#include "half.h"
#include "testing.h"

namespace sparsebert {
namespace {

#include "kernels/vec_portable.inl"

inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }

#include "kernels/activation.inl"
#include "tile_plain.inl"

inline void interleave(const float* first, const float* second, uint16_t* out) {
    for (int token = 0; token < kLaneTokens; ++token) {
        out[2 * token] = to_bf16(first[token]);
        out[2 * token + 1] = to_bf16(second[token]);
    }
}

inline void expand_row(const uint16_t* kept, uint32_t seconds, uint16_t* first, uint16_t* second) {
    for (int i = 0; i < 32; ++i) {
        const bool is_second = seconds >> i & 1;
        first[i] = is_second ? 0 : kept[i];
        second[i] = is_second ? kept[i] : 0;
    }
}

#include "bf16/linear_on_tiles.inl"

}  // namespace

const Bf16Kernels kPlainTilesBf16 = {"plain tiles", linear_on_tiles, 256, Products::kBf16Tiles};

}  // namespace sparsebert
