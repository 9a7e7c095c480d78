// NEON with dot products of signed bytes, sdot (Armv8.2: Neoverse N1, Apple M1). A dot product and
// a `tbl` take the same ports: two per cycle on Neoverse N1, four on Apple's cores.
#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels.h"

namespace sparsebert {
namespace {

#include "neon_signed.inl"

#include "neon.inl"

inline int32x4_t multiply_add(int32x4_t sums, Inputs inputs, int8x16_t weights) {
    return vdotq_s32(sums, inputs, weights);
}
template <int Lane>
inline int32x4_t multiply_lane(int32x4_t sums, Inputs inputs, int8x16_t weights) {
    return vdotq_laneq_s32(sums, weights, inputs, Lane);
}

template <int Lane>
inline int32x4_t multiply_by_lane(int32x4_t sums, Inputs inputs, int8x8_t weights) {
    return vdotq_lane_s32(sums, inputs, weights, Lane);
}

// Register block, tiles x tokens: at most 20 of 32 registers are accumulators.
constexpr int kTiles = 1, kPairTokens = 4, kDenseTokens = 5;
constexpr int kAttentionTiles = 1, kAttentionTokens = 5;

#include "neon_dots.inl"

template <int Lane>
[[gnu::always_inline]] inline void dot_lane(Sums& sums, Inputs inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sums.v[i] = multiply_lane<Lane>(sums.v[i], inputs, weights.v[i]);
}

// Dense layers take four steps per load of inputs; this is one of them, for all tokens.
template <int Lane, int R, int T>
[[gnu::always_inline]] inline void dense_step(Sums (&sums)[R][T], const int8_t* values,
                                              size_t values_tile, const Inputs (&inputs)[T]) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
        const Weights weights = load_weights(values + Lane * 64 + r * values_tile);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) dot_lane<Lane>(sums[r][t], inputs[t], weights);
    }
}

// As in tiles.inl. `fours` is even.
template <int R, int T, bool Prefetch = false>  // not done: not measured on Arm
[[gnu::always_inline]] inline void sum_dense(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint8_t* x, size_t stride,
                                             int fours) {
    Inputs inputs[T];
    int i = 0;
    for (; i + 4 <= fours; i += 4, values += 256, x += 16) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) inputs[t] = as_inputs(vld1q_u8(x + t * stride));
        dense_step<0>(sums, values, values_tile, inputs);
        dense_step<1>(sums, values, values_tile, inputs);
        dense_step<2>(sums, values, values_tile, inputs);
        dense_step<3>(sums, values, values_tile, inputs);
    }
    if (i == fours) return;
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) inputs[t] = load_group(x + t * stride);
    dense_step<0>(sums, values, values_tile, inputs);
    dense_step<1>(sums, values, values_tile, inputs);
}

#include "rows.inl"

#include "attention.inl"
#include "linear.inl"
#include "neon_expanded.inl"
#include "neon_lookup.inl"

}  // namespace

const Int8Kernels kNeonDotprodInt8 = {
    "neon-dotprod", linear_expanded, row_sums,   attention, activate, gate,
    norm,           split_heads,     add_scaled, dot,       rotate,   gather};
const Int8Kernels kNeonDotprodLookupInt8 = {
    "neon-dotprod lookup", linear_by_lookup, row_sums, attention, activate, gate, norm,
    split_heads,           add_scaled,       dot,      rotate,    gather};

}  // namespace sparsebert
