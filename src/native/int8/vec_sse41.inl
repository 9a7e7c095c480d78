// A vector of 4 floats: SSE4.1.
#pragma once

struct Vec {
    static constexpr int kWidth = 4;
    __m128 v;

    static Vec broadcast(float x) { return {_mm_set1_ps(x)}; }
    static Vec load(const float* p) { return {_mm_loadu_ps(p)}; }
    void store(float* p) const { _mm_storeu_ps(p, v); }
};

inline Vec add(Vec a, Vec b) { return {_mm_add_ps(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {_mm_sub_ps(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {_mm_mul_ps(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {_mm_div_ps(a.v, b.v)}; }
inline Vec abs(Vec a) { return {_mm_andnot_ps(_mm_set1_ps(-0.0f), a.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm_min_ps(a.v, b.v)}; }
inline Vec sqrt(Vec a) { return {_mm_sqrt_ps(a.v)}; }
inline Vec round(Vec a) {
    return {_mm_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2^n for an integer n, and 0 for -127: n + 127 is the exponent field.
inline Vec pow2(Vec n) {
    const __m128i exponent = _mm_add_epi32(_mm_cvtps_epi32(n.v), _mm_set1_epi32(127));
    return {_mm_castsi128_ps(_mm_slli_epi32(exponent, 23))};
}
inline Vec scaled(Vec a, Vec n) { return mul(a, pow2(n)); }

#include "fma_once.inl"

// The sum in doubles, rounded again to floats, except where that could differ from rounding once:
// half way between two floats, and among those too small for all 24 bits.
inline Vec fma(Vec a, Vec b, Vec c) {
    const auto low = [](Vec x) { return _mm_cvtps_pd(x.v); };
    const auto high = [](Vec x) { return _mm_cvtps_pd(_mm_movehl_ps(x.v, x.v)); };
    const __m128d one = _mm_add_pd(_mm_mul_pd(low(a), low(b)), low(c));
    const __m128d other = _mm_add_pd(_mm_mul_pd(high(a), high(b)), high(c));
    const __m128 ones = _mm_castpd_ps(one), others = _mm_castpd_ps(other);
    const __m128i low_words = _mm_castps_si128(_mm_shuffle_ps(ones, others, 0x88));
    const __m128i high_words = _mm_castps_si128(_mm_shuffle_ps(ones, others, 0xDD));
    // A double has 29 bits more than a float.
    const __m128i half_way = _mm_cmpeq_epi32(_mm_slli_epi32(low_words, 3), _mm_set1_epi32(1 << 31));
    // Magnitudes below 2^-126, but not 0: one word, less 1, is smaller as an unsigned number.
    const __m128i less_one =
        _mm_sub_epi32(_mm_and_si128(high_words, _mm_set1_epi32(0x7FFFFFFF)), _mm_set1_epi32(1));
    const __m128i most = _mm_set1_epi32(((1023 - 126) << 20) - 2);
    const __m128i small = _mm_cmpeq_epi32(_mm_min_epu32(less_one, most), less_one);
    const __m128i doubtful = _mm_or_si128(half_way, small);
    if (__builtin_expect(!_mm_testz_si128(doubtful, doubtful), 0)) return fma_once(a, b, c);
    return {_mm_movelh_ps(_mm_cvtpd_ps(one), _mm_cvtpd_ps(other))};
}
