// Lookup tables of bytes, for a `multiply_add` that takes bytes.
#pragma once

// A row's kept values of a group are one dword.
constexpr int kParts = 1, kFewestLookupTokens = 32;

inline void split_group(const uint64_t (&groups)[8], __m256i (&firsts)[1], __m256i (&seconds)[1]) {
    const __m256i low = load_32(groups), high = load_32(groups + 4);
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i a = _mm256_permutevar8x32_epi32(low, order);  // four firsts, four seconds
    const __m256i b = _mm256_permutevar8x32_epi32(high, order);
    firsts[0] = _mm256_permute2x128_si256(a, b, 0x20);
    seconds[0] = _mm256_permute2x128_si256(a, b, 0x31);
}
template <int Choice>
inline __m256i pick(__m256i first, __m256i second) {
    constexpr unsigned kMask = (Choice & 1) * 0xFFu | (Choice >> 1 & 1) * 0xFF00u |
                               (Choice >> 2 & 1) * 0xFF0000u | (Choice >> 3 & 1) * 0xFF000000u;
    return _mm256_blendv_epi8(first, second, _mm256_set1_epi32(static_cast<int>(kMask)));
}
inline void part_weights(const int8_t* values, uint8_t* out) {
    const Weights bytes = load_weights(values);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * i), bytes.v[i]);
}
inline __m256i add_products(__m256i sums, __m256i inputs, __m256i weights) {
    return multiply_add(sums, inputs, weights);
}

#include "avx2_lookup.inl"
