// NEON's inputs and weights, and 1:2: `tbl` selects each row's four of eight inputs, with an index
// for each byte. Indices are computed from the bits once for all tokens at hand. A `tbl` and a
// product take the ports of a dense layer's two products: only reading is saved. Included by files
// that have defined `Inputs` (16 of a token, in the form that is multiplied), `as_inputs` and
// `selected`, and `dot_quarter`, the product with four rows.
#pragma once

struct Weights {
    int8x16_t v[4];
};
using Four = Inputs;

inline Weights load_weights(const int8_t* p) {
    return {{vld1q_s8(p), vld1q_s8(p + 16), vld1q_s8(p + 32), vld1q_s8(p + 48)}};
}
inline Four load_four(const uint8_t* p) {
    uint32_t four;
    std::memcpy(&four, p, sizeof four);
    return as_inputs(vreinterpretq_u8_u32(vdupq_n_u32(four)));
}
inline void dot(Sums& sums, Four inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) dot_quarter(sums, i, inputs, weights.v[i]);
}

// Each row has four inputs of its own.
inline void dot_rows(Sums& sums, const uint8_t* inputs, const Weights& weights) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        dot_quarter(sums, i, as_inputs(vld1q_u8(inputs + 16 * i)), weights.v[i]);
}

// Eight inputs, twice.
inline Inputs load_group(const uint8_t* p) {
    const uint8x8_t group = vld1_u8(p);
    return as_inputs(vcombine_u8(group, group));
}

// A mask for each of 16 rows' four inputs: all bits set if the second of the pair is kept.
struct Masks {
    uint8x16_t v[4];
};
[[gnu::always_inline]] inline Masks load_masks(const uint64_t* bits) {
    const uint8x16_t all = vreinterpretq_u8_u64(vld1q_dup_u64(bits));
    const uint8x16_t each = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
    const uint8x16_t spread = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    Masks masks;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
        masks.v[i] = vtstq_u8(vqtbl1q_u8(all, vaddq_u8(spread, vdupq_n_u8(2 * i))), each);
    return masks;
}

// The positions of each row's four inputs in their group: 0 to 3, or 4 to 7.
[[gnu::always_inline]] inline uint8x16_t indices(uint8x16_t mask) {
    const uint8x16_t firsts = vreinterpretq_u8_u32(vdupq_n_u32(0x03020100));
    return vbslq_u8(mask, vaddq_u8(firsts, vdupq_n_u8(4)), firsts);
}

// As in tiles.inl.
template <int R, int T>
[[gnu::always_inline]] inline void sum_pairs(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint64_t* bits,
                                             size_t bits_tile, const uint8_t* x, size_t stride,
                                             int groups) {
    for (int g = 0; g < groups; ++g, values += 64, ++bits, x += 8) {
        Inputs inputs[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) inputs[t] = load_group(x + t * stride);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const Masks seconds = load_masks(bits + r * bits_tile);
            const Weights weights = load_weights(values + r * values_tile);
            __builtin_prefetch(values + (R + r) * values_tile, 0, 2);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                const uint8x16_t chosen = indices(seconds.v[i]);
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t)
                    dot_quarter(sums[r][t], i, selected(inputs[t], chosen), weights.v[i]);
            }
        }
        __builtin_prefetch(bits + R * bits_tile, 0, 2);
    }
}
