// NEON of any 64-bit Arm CPU (Cortex-A72). Products of bytes are words; the sum of two may not fit
// one (2 x 128 x 128), so each is added to 32-bit sums: two instructions for eight multiplies.
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

constexpr int kTiles = 1, kPairTokens = 2, kDenseTokens = 2;
constexpr int kAttentionTiles = 1, kAttentionTokens = 2;

// Rows 2 i and 2 i + 1 in register i, each as two partial sums.
struct Sums {
    int32x4_t v[8];
};

inline Sums zero_sums() {
    Sums sums;
#pragma GCC unroll 8
    for (int32x4_t& v : sums.v) v = vdupq_n_s32(0);
    return sums;
}
inline Sums load_sums(const int32_t* p) {
    Sums sums;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
        sums.v[i] = vreinterpretq_s32_u64(
            vmovl_u32(vld1_u32(reinterpret_cast<const uint32_t*>(p + 2 * i))));
    return sums;
}
inline Sums scaled_sums(const int32_t* p, int32_t factor) {
    Sums sums = load_sums(p);
#pragma GCC unroll 8
    for (int32x4_t& v : sums.v) v = vmulq_n_s32(v, factor);
    return sums;
}
// Rows 4 i to 4 i + 3.
inline int32x4_t whole_sums(const Sums& x, int i) { return vpaddq_s32(x.v[2 * i], x.v[2 * i + 1]); }
inline void store_sums(const Sums& x, int32_t* p) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, whole_sums(x, i));
}
inline void to_floats(const Sums& x, Vec (&lanes)[1]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) lanes[0].v[i] = {vcvtq_f32_s32(whole_sums(x, i))};
}

// Rows 4 i to 4 i + 3.
inline void dot_quarter(Sums& sums, int i, Inputs inputs, int8x16_t weights) {
    const int16x8_t low = vmull_s8(vget_low_s8(inputs), vget_low_s8(weights));
    sums.v[2 * i] = vpadalq_s16(sums.v[2 * i], low);
    sums.v[2 * i + 1] = vpadalq_s16(sums.v[2 * i + 1], vmull_high_s8(inputs, weights));
}

#include "neon_pairs.inl"
#include "rows.inl"
#include "tiles.inl"

#include "attention.inl"
#include "linear.inl"

}  // namespace

const Int8Kernels kNeonInt8 = {"neon", linear,      row_sums,   attention, activate, gate,
                               norm,   split_heads, add_scaled, dot,       rotate,   gather};

}  // namespace sparsebert
