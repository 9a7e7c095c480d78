// Sums with dot products, which add four products to each lane. Included by files that have defined
// `multiply_add`, a dot product with 16 inputs.
#pragma once

// Rows 4 i to 4 i + 3 in register i.
struct Sums {
    int32x4_t v[4];
};

inline Sums zero_sums() {
    const int32x4_t zero = vdupq_n_s32(0);
    return {{zero, zero, zero, zero}};
}
inline Sums load_sums(const int32_t* p) {
    return {{vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}};
}
inline void store_sums(const Sums& x, int32_t* p) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, x.v[i]);
}
inline Sums scaled_sums(const int32_t* p, int32_t factor) {
    Sums sums = load_sums(p);
#pragma GCC unroll 4
    for (int32x4_t& v : sums.v) v = vmulq_n_s32(v, factor);
    return sums;
}
inline void to_floats(const Sums& x, Vec (&lanes)[1]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) lanes[0].v[i] = {vcvtq_f32_s32(x.v[i])};
}

// Rows 4 i to 4 i + 3.
inline void dot_quarter(Sums& sums, int i, Inputs inputs, int8x16_t weights) {
    sums.v[i] = multiply_add(sums.v[i], inputs, weights);
}

#include "neon_pairs.inl"
