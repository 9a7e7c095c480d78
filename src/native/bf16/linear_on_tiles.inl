// Linear layers in bf16 on tile registers: 32 outputs by 32 tokens at a time, in four tiles of
// sums. As in int8/linear_on_tiles.inl, 1:2 weights are expanded again for every 32 tokens, a panel
// ahead of the products, into a ring buffer that stays in L1. The sums come out feature-major, like
// the activations of the floating-point pass: nothing is ever transposed.
#pragma once

#include "inputs.inl"

constexpr int kBlockTiles = 2;  // tiles of tokens, and of outputs, in a block
constexpr int kRingPanels = 2;
// This many tiles of outputs pass over a block of tokens before the next block, so that their
// packed weights stay in L2.
constexpr int kTilesTogether = 16;

struct TileScratch {
    alignas(64) uint16_t ring[kRingPanels][kBlockTiles][2][kBf16TileWords];
    alignas(64) float sums[kBlockTiles * 16][kBlockTiles * 16];
};
static_assert(sizeof(TileScratch) <= kBf16BlockScratch);

// N tiles of weights from `tile` on.
template <int N>
struct DenseTiles {
    DenseTiles(const Matrix&, const void* values, int panels, int tile, TileScratch&, bool)
        : first(static_cast<const uint16_t*>(values) + tile_words(panels) * tile),
          stride(tile_words(panels)) {}
    static size_t tile_words(int panels) {
        return static_cast<size_t>(panels) * 2 * kBf16TileWords;
    }

    void prepare(int) const {}
    const uint16_t* weights(int n, int panel, int half) const {
        return first + n * stride + (panel * 2 + half) * static_cast<size_t>(kBf16TileWords);
    }

    const uint16_t* first;
    size_t stride;
};

template <int N>
struct PairTiles {
    PairTiles(const Matrix&, const void* values, int panels, int tile, TileScratch& scratch,
              bool fetches)
        : first(static_cast<const Bf16Pairs*>(values) + static_cast<size_t>(panels) * tile),
          panels(panels),
          scratch(scratch),
          fetches(fetches) {}

    void prepare(int panel) const {
        if (panel >= panels) return;
        for (int n = 0; n < N; ++n) {
            const Bf16Pairs& from = first[n * panels + panel];
            auto& to = scratch.ring[panel % kRingPanels][n];
            for (int row = 0; row < 16; ++row)
                expand_row(from.kept[row], from.seconds[row], to[0] + row * 32, to[1] + row * 32);
            if (fetches) fetch(&first[(n + N) * panels + panel]);
        }
    }
    const uint16_t* weights(int n, int panel, int half) const {
        return scratch.ring[panel % kRingPanels][n][half];
    }
    // Prefetches the following tiles to L2: the hardware prefetcher stops at each page.
    static void fetch(const Bf16Pairs* next) {
        const char* from = reinterpret_cast<const char*>(next);
        for (size_t at = 0; at < sizeof *next; at += 64) __builtin_prefetch(from + at, 0, 2);
    }

    const Bf16Pairs* first;
    int panels;
    TileScratch& scratch;
    bool fetches;
};

// M tiles of tokens by N tiles of outputs.
template <int M, int N, typename Weights>
void multiply_block(const Weights& weights, const uint16_t* x, int panels, TileScratch& scratch) {
    const size_t next_tokens = static_cast<size_t>(panels) * 2 * kBf16TileWords;
    Tile<0>::zero();
    if constexpr (N > 1) Tile<1>::zero();
    if constexpr (M > 1) Tile<2>::zero();
    if constexpr (M > 1 && N > 1) Tile<3>::zero();
    weights.prepare(0);
    for (int panel = 0; panel < panels; ++panel) {
        weights.prepare(panel + 1);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half, x += kBf16TileWords) {
            Tile<4>::load(weights.weights(0, panel, half), 64);
            Tile<6>::load(x, 64);
            multiply_bf16(Tile<0>(), Tile<4>(), Tile<6>());
            if constexpr (N > 1) {
                Tile<5>::load(weights.weights(1, panel, half), 64);
                multiply_bf16(Tile<1>(), Tile<5>(), Tile<6>());
            }
            if constexpr (M > 1) {
                Tile<7>::load(x + next_tokens, 64);
                multiply_bf16(Tile<2>(), Tile<4>(), Tile<7>());
                if constexpr (N > 1) multiply_bf16(Tile<3>(), Tile<5>(), Tile<7>());
            }
        }
    }
    constexpr size_t kStride = sizeof scratch.sums[0];
    Tile<0>::store(scratch.sums[0], kStride);
    if constexpr (N > 1) Tile<1>::store(scratch.sums[16], kStride);
    if constexpr (M > 1) Tile<2>::store(&scratch.sums[0][16], kStride);
    if constexpr (M > 1 && N > 1) Tile<3>::store(&scratch.sums[16][16], kStride);
}

// Rows [row_begin, row_end), which lie in tiles [tile_begin, tile_end), N tiles at a time, over all
// tokens.
template <int N, template <int> class Weights>
void tiles_of_layer(const Linear& call, int panels, const uint16_t* x, TileScratch& scratch,
                    int tile_begin, int tile_end, int row_begin, int row_end) {
    const size_t tile_words = static_cast<size_t>(panels) * 2 * kBf16TileWords;
    for (int token = 0; token < call.width; token += kBlockTiles * 16, x += 2 * tile_words) {
        const bool two = call.width - token > 16;
        for (int tile = tile_begin; tile + N <= tile_end; tile += N) {
            const bool fetches = token == 0 && tile + 2 * N <= tile_end;
            const Weights<N> weights(*call.weight, call.weight->values, panels, tile, scratch,
                                     fetches);
            if (two)
                multiply_block<2, N>(weights, x, panels, scratch);
            else
                multiply_block<1, N>(weights, x, panels, scratch);
            const int first = tile * 16;
            const int begin = std::max(row_begin, first), end = std::min(row_end, first + N * 16);
            for (int row = begin; row < end; ++row)
                finish_row(call, row, token, scratch.sums[row - first], two ? 32 : 16);
        }
    }
}

template <template <int> class Weights>
void all_tiles(const Linear& call, int panels, const uint16_t* x, TileScratch& scratch,
               int row_begin, int row_end) {
    const int begin = row_begin / 16, end = (row_end + 15) / 16;
    const int even = begin + (end - begin) / kBlockTiles * kBlockTiles;
    for (int tile = begin; tile < even; tile += kTilesTogether)
        tiles_of_layer<kBlockTiles, Weights>(call, panels, x, scratch, tile,
                                             std::min(even, tile + kTilesTogether), row_begin,
                                             row_end);
    if (even < end)
        tiles_of_layer<1, Weights>(call, panels, x, scratch, even, end, row_begin, row_end);
}

void linear_on_tiles(const Linear& call, int row_begin, int row_end) {
    const Matrix& w = *call.weight;
    const TilesInUse tiles(16);
    TileScratch& scratch = *reinterpret_cast<TileScratch*>(call.scratch);
    uint16_t* x = reinterpret_cast<uint16_t*>(call.scratch + kBf16BlockScratch);
    const int columns = w.layout == Layout::kBf16SharedPairs ? w.columns / 2 : w.columns;
    const int panels = bf16_panels(columns);
    each_block_of_rows(w, row_begin, row_end, [&](const uint8_t* seconds, int begin, int end) {
        lay_out_inputs({call.x, columns, call.width, seconds}, x);
        if (w.layout == Layout::kBf16Pairs)
            all_tiles<PairTiles>(call, panels, x, scratch, begin, end);
        else
            all_tiles<DenseTiles>(call, panels, x, scratch, begin, end);
    });
}
