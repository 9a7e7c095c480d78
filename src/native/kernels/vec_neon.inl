// A vector of 4 floats: NEON.
#pragma once

struct Vec {
    static constexpr int kWidth = 4;
    float32x4_t v;

    static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
    static Vec load(const float* p) { return {vld1q_f32(p)}; }
    static Vec load_half(const uint16_t* p) {
        return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))};
    }
    static Vec load_once(const float* p) { return load(p); }  // NEON has no memory operands
    void store(float* p) const { vst1q_f32(p, v); }
};

inline Vec add(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Vec abs(Vec a) { return {vabsq_f32(a.v)}; }
inline Vec max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {vminq_f32(a.v, b.v)}; }
inline Vec sqrt(Vec a) { return {vsqrtq_f32(a.v)}; }
inline Vec round(Vec a) { return {vrndnq_f32(a.v)}; }
// 2^n for an integer n, and 0 for -127: n + 127 is the exponent field.
inline Vec pow2(Vec n) {
    const uint32x4_t whole = vreinterpretq_u32_s32(vcvtq_s32_f32(n.v));  // infinity gives 2^31 - 1
    return {vreinterpretq_f32_u32(vshlq_n_u32(vaddq_u32(whole, vdupq_n_u32(127)), 23))};
}
inline Vec scaled(Vec a, Vec n) { return mul(a, pow2(n)); }
