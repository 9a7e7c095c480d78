// NEON with products of signed by unsigned bytes (i8mm, Armv8.6: Neoverse V1 and V2, Apple M2).
// usmmla multiplies two tokens by two rows by eight inputs, twice the multiplies of a dot product;
// it cannot skip a zero.
#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels.h"

namespace sparsebert {
namespace {

constexpr int kInputOffset = 0;  // inputs are multiplied as they are

#include "neon.inl"

// Register blocks, tiles x tokens: 16 (1:2) and 24 (dense) of 32 registers are accumulators.
constexpr int kTiles = 1, kPairTokens = 4, kDenseTokens = 6;
constexpr int kAttentionTiles = 1, kAttentionTokens = 6;

using Inputs = uint8x16_t;

inline Inputs as_inputs(uint8x16_t x) { return x; }
inline Inputs selected(Inputs x, uint8x16_t indices) { return vqtbl1q_u8(x, indices); }
inline int32x4_t multiply_add(int32x4_t sums, Inputs inputs, int8x16_t weights) {
    return vusdotq_s32(sums, inputs, weights);
}

#include "neon_dots.inl"

// Rows 4 i and 4 i + 1 of two tokens, or the two rows that follow. The same functions undo it.
[[gnu::always_inline]] inline int32x4_t first_halves(int32x4_t a, int32x4_t b) {
    return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}
[[gnu::always_inline]] inline int32x4_t second_halves(int32x4_t a, int32x4_t b) {
    return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

// As in tiles.inl, two tokens at a time; if T is odd, the last is paired with itself. `fours` is
// even.
template <int R, int T, bool Prefetch = false>  // not done: not measured on Arm
[[gnu::always_inline]] inline void sum_dense(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint8_t* x, size_t stride,
                                             int fours) {
    constexpr int kTwos = (T + 1) / 2;
    int32x4_t twos[R][kTwos][8];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int p = 0; p < kTwos; ++p) {
            const Sums &a = sums[r][2 * p], &b = sums[r][std::min(2 * p + 1, T - 1)];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                twos[r][p][2 * i] = first_halves(a.v[i], b.v[i]);
                twos[r][p][2 * i + 1] = second_halves(a.v[i], b.v[i]);
            }
        }
    for (int i = 0; i < fours; i += 2, values += 128, x += 8) {
        uint8x16_t inputs[kTwos];
#pragma GCC unroll 4
        for (int p = 0; p < kTwos; ++p)
            inputs[p] = vcombine_u8(vld1_u8(x + 2 * p * stride),
                                    vld1_u8(x + std::min(2 * p + 1, T - 1) * stride));
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int q = 0; q < 4; ++q) {
                const int8_t* from = values + r * values_tile + q * 16;
                const int32x4_t one = vreinterpretq_s32_s8(vld1q_s8(from));
                const int32x4_t other = vreinterpretq_s32_s8(vld1q_s8(from + 64));
                // Two rows by eight inputs.
                const int8x16_t low = vreinterpretq_s8_s32(vzip1q_s32(one, other));
                const int8x16_t high = vreinterpretq_s8_s32(vzip2q_s32(one, other));
#pragma GCC unroll 4
                for (int p = 0; p < kTwos; ++p) {
                    int32x4_t* into = twos[r][p] + 2 * q;
                    into[0] = vusmmlaq_s32(into[0], inputs[p], low);
                    into[1] = vusmmlaq_s32(into[1], inputs[p], high);
                }
            }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const int32x4_t* from = twos[r][t / 2] + 2 * i;
                sums[r][t].v[i] =
                    t % 2 ? second_halves(from[0], from[1]) : first_halves(from[0], from[1]);
            }
}

#include "rows.inl"

#include "attention.inl"
#include "linear.inl"
#include "neon_expanded.inl"

}  // namespace

const Int8Kernels kNeonI8mmInt8 = {
    "neon-i8mm", linear_expanded, row_sums,   attention, activate, gate,
    norm,        split_heads,     add_scaled, dot,       rotate,   gather};

}  // namespace sparsebert
