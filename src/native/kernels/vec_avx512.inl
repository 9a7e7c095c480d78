// A vector of 16 floats: AVX-512.
#pragma once

struct Vec {
    static constexpr int kWidth = 16;
    __m512 v;

    static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
    static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static Vec load_half(const uint16_t* p) {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    // Keeps the compiler from folding the load into each of its uses, which would repeat it.
    static Vec load_once(const float* p) {
        Vec x = load(p);
        asm("" : "+v"(x.v));
        return x;
    }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
};

inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
inline Vec round(Vec a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec pow2(Vec n) { return {_mm512_scalef_ps(_mm512_set1_ps(1.0f), n.v)}; }
// a 2^n for an integer n >= -126; 0 for -127, as if the power had been multiplied by. NaN stays
// NaN.
inline Vec scaled(Vec a, Vec n) {
    const __mmask16 normal = _mm512_cmp_ps_mask(n.v, _mm512_set1_ps(-127.0f), _CMP_NLE_UQ);
    return {_mm512_maskz_scalef_ps(normal, a.v, n.v)};
}
