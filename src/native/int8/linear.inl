// Linear layers: y = scale_x scale_w (W q - zero sum(W)) + bias + residual.
#pragma once

#include "expansion.inl"
#include "runs.inl"

// Up to this many tokens, fetching the weights takes a good part of the time.
constexpr int kPrefetchTokens = 128;

// T rows of activations by R tiles of a layer. The sums start at (kInputOffset - zero) x sum(W),
// which accounts for the zero points and for the offset of inputs.
template <int R, int T>
struct LinearTile {
    const Int8Linear& call;
    int tile, token;

    const uint8_t* x() const { return call.x.values + token * call.x.stride; }

    // Loops over sums are unrolled explicitly; otherwise the compiler would keep the sums in
    // memory.
    [[gnu::always_inline]] void begin(Sums (&sums)[R][T]) const {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t)
                sums[r][t] = scaled_sums(call.weight->sums + (tile + r) * kTileRows,
                                         kInputOffset - call.x.zero_points[token + t]);
    }

    [[gnu::always_inline]] void end(Sums (&sums)[R][T]) const {
        // Two copies: a branch further in would prevent unrolling.
        if (call.residual)
            store<true>(sums);
        else
            store<false>(sums);
    }

    template <bool Residual>
    [[gnu::always_inline]] void store(Sums (&sums)[R][T]) const {
        const int row = tile * kTileRows;
        const float* scales = call.weight->scales + row;
        const float* bias = call.weight->bias + row;
        const size_t first = token * call.stride + (row - call.first_row);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const Vec scale = Vec::broadcast(call.x.scales[token + t]);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                Vec lanes[kTileVectors];
                to_floats(sums[r][t], lanes);
#pragma GCC unroll 4
                for (int v = 0; v < kTileVectors; ++v) {
                    const int i = r * kTileRows + v * Vec::kWidth;
                    Vec y = fma(lanes[v], mul(scale, Vec::load(scales + i)), Vec::load(bias + i));
                    const size_t at = first + t * call.stride + i;
                    if constexpr (Residual) y = add(y, Vec::load(call.residual + at));
                    y.store(call.y + at);
                }
            }
        }
    }
};

// R tiles by `runs` runs of T tokens.
template <int R, int T>
[[gnu::noinline]] void pair_tiles(LinearTile<R, T> at, int runs) {
    const Int8Weight& w = *at.call.weight;
    const size_t groups = w.groups(), first = at.tile * groups;
    for (; runs > 0; --runs, at.token += T) {
        Sums sums[R][T];
        at.begin(sums);
        sum_pairs<R, T>(sums, w.values + first * 64, groups * 64, w.bits + first, groups, at.x(),
                        at.call.x.stride, w.groups());
        at.end(sums);
    }
}

template <int R, int T>
[[gnu::noinline]] void dense_tiles(LinearTile<R, T> at, const int8_t* values, int runs) {
    const int fours = 2 * at.call.weight->groups();
    const auto each = [&](auto prefetch) {
        for (; runs > 0; --runs, at.token += T) {
            Sums sums[R][T];
            at.begin(sums);
            sum_dense<R, T, prefetch()>(sums, values, static_cast<size_t>(fours) * 64, at.x(),
                                        at.call.x.stride, fours);
            at.end(sums);
        }
    };
    if (at.call.tokens <= kPrefetchTokens)
        each(std::true_type());
    else
        each(std::false_type());
}

// R tiles stay in L1 while all tokens pass over them.
template <int R>
void linear_tiles(const Int8Linear& call, int tile) {
    const Int8Weight& w = *call.weight;
    switch (w.layout) {
        case Int8Layout::kPairs:
            each_run<kPairTokens>(call.tokens, [&](auto length, int token, int runs) {
                pair_tiles(LinearTile<R, length()>{call, tile, token}, runs);
            });
            break;
        case Int8Layout::kDense:
            each_run<kDenseTokens>(call.tokens, [&](auto length, int token, int runs) {
                dense_tiles(LinearTile<R, length()>{call, tile, token},
                            w.values + tile * int8_expansion(w.columns), runs);
            });
            break;
        default:
            for (int r = 0; r < R; ++r) {
                expand_tile(w, tile + r, call.scratch);
                each_run<kDenseTokens>(call.tokens, [&](auto length, int token, int runs) {
                    dense_tiles(LinearTile<1, length()>{call, tile + r, token}, call.scratch, runs);
                });
            }
    }
}

void linear(const Int8Linear& call, int tile_begin, int tile_end) {
    int tile = tile_begin;
    for (; tile + kTiles <= tile_end; tile += kTiles) linear_tiles<kTiles>(call, tile);
    if (tile < tile_end)
        with_constant<kTiles>(tile_end - tile,
                              [&](auto rest) { linear_tiles<rest()>(call, tile); });
}

// The same call for the tokens from `first` on.
inline Int8Linear tokens_from(Int8Linear call, int first) {
    call.tokens -= first;
    call.x.values += first * call.x.stride;
    call.x.scales += first;
    call.x.zero_points += first;
    call.y += first * call.stride;
    if (call.residual) call.residual += first * call.stride;
    return call;
}
