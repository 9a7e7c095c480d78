// The inner product of every int8 layer: R tiles of 16 weight rows by T tokens, summed in registers
// over all inputs, four at a time. Included by files that have defined the types of one instruction
// set:
//   Sums       int32 of a tile's 16 rows
//   Weights    16 rows x 4 inputs
//   Four       four inputs of a token, for every row
// and load_weights, load_four, dot. A set may have its own loops instead.
#pragma once

// Dense: `fours` steps of four inputs. `Prefetch` also fetches the weights of the next R tiles.
template <int R, int T, bool Prefetch = false>
[[gnu::always_inline]] inline void sum_dense(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint8_t* x, size_t stride,
                                             int fours) {
    for (int i = 0; i < fours; ++i, values += 64, x += 4) {
        Weights weights[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            weights[r] = load_weights(values + r * values_tile);
            if constexpr (Prefetch) __builtin_prefetch(values + (R + r) * values_tile, 0, 2);
        }
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const Four inputs = load_four(x + t * stride);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) dot(sums[r][t], inputs, weights[r]);
        }
    }
}
