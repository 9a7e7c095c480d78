// NEON: operations on 16 features and on rows of bytes, shared by the sets that multiply
// differently. They have defined `kInputOffset`.
#pragma once

namespace part {
#include "../kernels/vec_neon.inl"

inline float lane_sum(Vec x) {
    const float32x2_t pairs = vadd_f32(vget_low_f32(x.v), vget_high_f32(x.v));
    return vget_lane_f32(pairs, 0) + vget_lane_f32(pairs, 1);
}
inline float largest(Vec x) { return vmaxvq_f32(x.v); }
}  // namespace part

#include "vec_wide.inl"

constexpr int kTileVectors = 1;

// Rounds, and saturates whatever does not fit.
inline int32x4_t whole(part::Vec x) { return vcvtnq_s32_f32(x.v); }

// Packs the low eight bits of 16 int32 into bytes.
inline uint8x16_t low_bytes(const int32x4_t (&x)[4]) {
    const int16x8_t low = vcombine_s16(vmovn_s32(x[0]), vmovn_s32(x[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(x[2]), vmovn_s32(x[3]));
    return vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

inline void store_bytes(const Vec (&lanes)[1], uint8_t* out) {
    const int32x4_t bytes[4] = {whole(lanes[0].v[0]), whole(lanes[0].v[1]), whole(lanes[0].v[2]),
                                whole(lanes[0].v[3])};
    vst1q_u8(out, low_bytes(bytes));
}

// The same for 64 numbers.
inline void store_64_bytes(const Vec (&lanes)[4], uint8_t* out) {
    for (int i = 0; i < 4; ++i) store_bytes({lanes[i]}, out + i * 16);
}

// clip(round(x inverse) + zero, 0, 255) of 16 features, with the inputs of each group in their
// order.
inline void quantize_16(const float* x, float inverse, float zero, uint8_t* out) {
    const Vec scaled = mul(Vec::load(x), Vec::broadcast(inverse));
    const int16x8_t offset = vdupq_n_s16(static_cast<int16_t>(zero));
    const auto words = [&](int i) {
        const int16x4_t low = vqmovn_s32(whole(scaled.v[i]));
        return vqaddq_s16(vcombine_s16(low, vqmovn_s32(whole(scaled.v[i + 1]))), offset);
    };
    const uint8x16_t bytes = vcombine_u8(vqmovun_s16(words(0)), vqmovun_s16(words(2)));
    const uint8x16_t order = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
    vst1q_u8(out, vqtbl1q_u8(bytes, order));
}

inline void quantize_64(const float* x, float inverse, float zero, uint8_t* out) {
    for (int i = 0; i < 64; i += 16) quantize_16(x + i, inverse, zero, out + i);
}

inline void quantize_signed_16(const float* x, float inverse, int offset, uint8_t* out) {
    const Vec scaled = mul(Vec::load(x), Vec::broadcast(inverse));
    int32x4_t bytes[4];
    for (int i = 0; i < 4; ++i) bytes[i] = vaddq_s32(whole(scaled.v[i]), vdupq_n_s32(offset));
    vst1q_u8(out, low_bytes(bytes));
}

// Lane j of a[i] becomes lane i of a[j].
[[gnu::always_inline]] inline void transpose_4(int32x4_t (&a)[4]) {
    const int64x2_t even[2] = {vreinterpretq_s64_s32(vtrn1q_s32(a[0], a[1])),
                               vreinterpretq_s64_s32(vtrn1q_s32(a[2], a[3]))};
    const int64x2_t odd[2] = {vreinterpretq_s64_s32(vtrn2q_s32(a[0], a[1])),
                              vreinterpretq_s64_s32(vtrn2q_s32(a[2], a[3]))};
    a[0] = vreinterpretq_s32_s64(vtrn1q_s64(even[0], even[1]));
    a[1] = vreinterpretq_s32_s64(vtrn1q_s64(odd[0], odd[1]));
    a[2] = vreinterpretq_s32_s64(vtrn2q_s64(even[0], even[1]));
    a[3] = vreinterpretq_s32_s64(vtrn2q_s64(odd[0], odd[1]));
}

// Transposes `count` keys of `depth` bytes, `stride` apart, to [depth / 4][16 keys][4]; missing
// keys are zero. offsets[key] = (kInputOffset - 128) x the sum of its bytes.
inline void transpose_keys(const uint8_t* keys, size_t stride, int count, int depth, int8_t* out,
                           int32_t* offsets) {
    for (int first = 0; first < 16; first += 4) {
        int32x4_t sums = vdupq_n_s32(0);
        for (int d = 0; d < depth; d += 16) {
            int32x4_t rows[4];
            for (int i = 0; i < 4; ++i)
                rows[i] = first + i < count
                              ? vreinterpretq_s32_u8(vld1q_u8(keys + (first + i) * stride + d))
                              : vdupq_n_s32(0);
            transpose_4(rows);
            for (int i = 0; i < 4; ++i) {
                const int8x16_t fours = vreinterpretq_s8_s32(rows[i]);
                vst1q_s8(out + (d / 4 + i) * 64 + first * 4, fours);
                sums = vpadalq_s16(sums, vpaddlq_s8(fours));
            }
        }
        vst1q_s32(offsets + first, vmulq_s32(sums, vdupq_n_s32(kInputOffset - 128)));
    }
}

// Interleaves `count` (1 to 4) rows of `depth` bytes to [depth / 16][16 columns][4 rows]; column
// tiles are `tile` bytes apart.
inline void interleave_values(const uint8_t* values, size_t stride, int count, int depth,
                              int8_t* out, size_t tile) {
    for (int d = 0; d < depth; d += 16, out += tile) {
        uint8x16x4_t rows;
        for (int i = 0; i < 4; ++i)
            rows.val[i] = i < count ? vld1q_u8(values + i * stride + d) : vdupq_n_u8(0);
        vst4q_u8(reinterpret_cast<uint8_t*>(out), rows);
    }
}
