// The inner product of every int8 layer: R tiles of 16 weight rows by T tokens, summed in
// registers over all inputs. Included by a file that has defined the types of one instruction set:
//   Sums       int32 of a tile's 16 rows
//   Weights    16 rows x 4 inputs
//   Four       four inputs of a token, for every row
//   Choice     16 x 4 bits
// and load_weights, load_choice, load_four, choose, dot.
#pragma once

// 1:2. Each pair's bit chooses one of two inputs: a blend, which on AMD runs on ports that the
// multiplies leave idle, then half the multiplies of a dense layer.
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

// Dense: `fours` steps of four inputs.
template <int R, int T>
[[gnu::always_inline]] inline void sum_dense(Sums (&sums)[R][T], const int8_t* values,
                                             size_t values_tile, const uint8_t* x, size_t stride,
                                             int fours) {
    for (int i = 0; i < fours; ++i, values += 64, x += 4) {
        Weights weights[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) weights[r] = load_weights(values + r * values_tile);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const Four inputs = load_four(x + t * stride);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) dot(sums[r][t], inputs, weights[r]);
        }
    }
}

// Calls visit(std::integral_constant<int, count>()) for a count from 1 to Most.
template <int Most, typename Visit>
inline void with_constant(int count, const Visit& visit) {
    if constexpr (Most > 1)
        if (count < Most) return with_constant<Most - 1>(count, visit);
    visit(std::integral_constant<int, Most>());
}

// Cuts `count` into runs of nearly equal length, at most Most. The longer ones come first:
// visit(length as a constant, start, number of such runs).
template <int Most, typename Visit>
inline void each_run(int count, const Visit& visit) {
    const int runs = (count + Most - 1) / Most;
    if (runs == 0) return;
    const int length = count / runs, longer = count % runs;
    if (longer > 0)
        with_constant<Most>(length + 1, [&](auto constant) { visit(constant, 0, longer); });
    with_constant<Most>(
        length, [&](auto constant) { visit(constant, longer * (length + 1), runs - longer); });
}
