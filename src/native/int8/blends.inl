// 1:2 linear layers with blends. Included by files that have defined the types of tiles.inl, and
//   Choice     16 x 4 bits
// with load_choice and choose.
#pragma once

// Each pair's bit chooses one of two inputs with a blend, which on AMD runs on ports that the
// multiplies leave idle. That leaves half the multiplies of a dense layer.
template <int R, int T>
[[gnu::always_inline]] inline void sum_pairs(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint64_t* bits,
                                             size_t bits_tile, const uint8_t* x, size_t stride,
                                             int groups) {
    for (int g = 0; g < groups; ++g, values += 64, ++bits, x += 8) {
        Weights weights[R];
        Choice choices[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            weights[r] = load_weights(values + r * values_tile);
            choices[r] = load_choice(bits + r * bits_tile);
            __builtin_prefetch(values + (R + r) * values_tile, 0, 2);
        }
        __builtin_prefetch(bits + R * bits_tile, 0, 2);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const Four first = load_four(x + t * stride), second = load_four(x + t * stride + 4);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r)
                dot(sums[r][t], choose(choices[r], first, second), weights[r]);
        }
    }
}
