// Linear layers in bf16 on vectors: an instruction adds the products of two words for each of 16
// outputs. As in int8/blends.inl, each pair's bit chooses one of two inputs, so that 1:2 weights
// need half the multiplies of dense ones.
#pragma once

#include "inputs.inl"

// Register block, tiles of outputs x tokens: 24 of 32 registers are accumulators, and there are few
// loads per multiply.
constexpr int kTiles = 3, kTokens = 8;
constexpr int kTileTokens = kLaneTokens;

// R tiles of weights from `tile` on. add_panel adds the products of a panel to the sums of kTokens
// tokens, whose inputs start at x, and prefetches the weights of the next R tiles.
template <int R>
struct DenseTiles {
    DenseTiles(const Matrix& w, int panels, int tile)
        : stride(static_cast<size_t>(panels) * 2 * kBf16TileWords),
          first(static_cast<const uint16_t*>(w.values) + tile * stride) {}

    [[gnu::always_inline]] void add_panel(__m512 (&sums)[R][kTokens], int panel,
                                          const uint16_t* x) const {
        const uint16_t* weights = first + static_cast<size_t>(panel) * 2 * kBf16TileWords;
        for (int half = 0; half < 2; ++half, x += kBf16TileWords)
            for (int step = 0; step < 16; ++step, weights += 32) {
                __m512bh w[R];
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    w[r] = words(weights + r * stride);
                    __builtin_prefetch(weights + (R + r) * stride, 0, 2);
                }
#pragma GCC unroll 8
                for (int t = 0; t < kTokens; ++t) {
                    const __m512bh inputs = two_words(x + t * 32 + 2 * step);
#pragma GCC unroll 4
                    for (int r = 0; r < R; ++r)
                        sums[r][t] = _mm512_dpbf16_ps(sums[r][t], inputs, w[r]);
                }
            }
    }

    size_t stride;
    const uint16_t* first;
};

template <int R>
struct PairTiles {
    PairTiles(const Matrix& w, int panels, int tile)
        : stride(panels),
          first(static_cast<const Bf16Pairs*>(w.values) + static_cast<size_t>(tile) * panels) {}

    [[gnu::always_inline]] void add_panel(__m512 (&sums)[R][kTokens], int panel,
                                          const uint16_t* x) const {
        const Bf16Pairs* weights = first + panel;
        for (int step = 0; step < 16; ++step) {
            __m512bh w[R];
            __mmask32 seconds[R];
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                w[r] = words(weights[r * stride].kept[step]);
                seconds[r] = weights[r * stride].seconds[step];
                __builtin_prefetch(weights[(R + r) * stride].kept[step], 0, 2);
            }
#pragma GCC unroll 8
            for (int t = 0; t < kTokens; ++t) {
                const uint16_t* at = x + t * 32 + 2 * step;
                const __m512i a = (__m512i)two_words(at);
                const __m512i b = (__m512i)two_words(at + kBf16TileWords);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const __m512bh inputs = (__m512bh)_mm512_mask_blend_epi16(seconds[r], a, b);
                    sums[r][t] = _mm512_dpbf16_ps(sums[r][t], inputs, w[r]);
                }
            }
        }
    }

    size_t stride;
    const Bf16Pairs* first;
};

// Transposes 16 x 16 four-byte numbers in place.
inline void transpose_in_place(void* numbers) {
    __m512i* rows = static_cast<__m512i*>(numbers);
    __m512i a[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_load_si512(rows + i);
    transpose_16x16(a);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(rows + i, a[i]);
}

// Multiplies R tiles of outputs by the 16 tokens whose inputs start at x, to out [R][16 tokens][16
// outputs].
template <int R, template <int> class Weights>
[[gnu::noinline]] void multiply_tiles(const Weights<R>& weights, const uint16_t* x, int panels,
                                      float (*out)[16][16]) {
    for (int token = 0; token < kTileTokens; token += kTokens, x += kTokens * 32) {
        __m512 sums[R][kTokens];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int t = 0; t < kTokens; ++t) sums[r][t] = _mm512_setzero_ps();
        for (int panel = 0; panel < panels; ++panel)
            weights.add_panel(sums, panel, x + static_cast<size_t>(panel) * 2 * kBf16TileWords);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int t = 0; t < kTokens; ++t) _mm512_store_ps(out[r][token + t], sums[r][t]);
    }
}

// R tiles stay in L2 while all tokens pass over them.
template <int R, template <int> class Weights>
void tiles_of_layer(const Linear& call, int panels, const uint16_t* x, int tile, int row_begin,
                    int row_end) {
    alignas(64) float sums[R][16][16];
    const Weights<R> weights(*call.weight, panels, tile);
    const int first = tile * kBf16TileRows;
    const int begin = std::max(row_begin, first);
    const int end = std::min(row_end, first + R * kBf16TileRows);
    for (int token = 0; token < call.width; token += kTileTokens) {
        multiply_tiles<R, Weights>(weights, x, panels, sums);
        for (int r = 0; r < R; ++r) transpose_in_place(sums[r]);
        for (int row = begin; row < end; ++row)
            finish_row(call, row, token, sums[(row - first) / 16][(row - first) % 16], kTileTokens);
        x += static_cast<size_t>(panels) * 2 * kBf16TileWords;
    }
}

template <template <int> class Weights>
void all_tiles(const Linear& call, int panels, const uint16_t* x, int row_begin, int row_end) {
    const int end = (row_end + kBf16TileRows - 1) / kBf16TileRows;
    for (int tile = row_begin / kBf16TileRows; tile < end; tile += kTiles) {
        const int left = end - tile;
        if (left >= kTiles)
            tiles_of_layer<kTiles, Weights>(call, panels, x, tile, row_begin, row_end);
        else if (left == 2)
            tiles_of_layer<2, Weights>(call, panels, x, tile, row_begin, row_end);
        else
            tiles_of_layer<1, Weights>(call, panels, x, tile, row_begin, row_end);
    }
}

void linear(const Linear& call, int row_begin, int row_end) {
    const Matrix& w = *call.weight;
    uint16_t* x = reinterpret_cast<uint16_t*>(call.scratch);
    const int columns = w.layout == Layout::kBf16SharedPairs ? w.columns / 2 : w.columns;
    const int panels = bf16_panels(columns);
    each_block_of_rows(w, row_begin, row_end, [&](const uint8_t* seconds, int begin, int end) {
        lay_out_inputs({call.x, columns, call.width, seconds}, x);
        // Token-major, so that two words of one token can be broadcast.
        const size_t tiles = static_cast<size_t>(call.width / kTileTokens) * panels * 2;
        for (size_t i = 0; i < tiles; ++i) transpose_in_place(x + i * kBf16TileWords);
        if (w.layout == Layout::kBf16Pairs)
            all_tiles<PairTiles>(call, panels, x, begin, end);
        else
            all_tiles<DenseTiles>(call, panels, x, begin, end);
    });
}
