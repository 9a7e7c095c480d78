// Linear layers on tile registers: 32 tokens by 32 outputs at a time, in four tiles of sums. A step
// is 64 inputs: two tiles of inputs, two of weights, four products.
//
// A product takes 16 cycles, and in that time a core can do everything else, if it comes at the
// right moment. So each step also does its share of the other work:
// - 1:2 weights are expanded a few steps ahead into a ring buffer that stays in L1. Two masked
// moves
//   turn one register of kept values into two rows of a tile, thanks to the order of a group's
//   inputs. Expanding again for every 32 tokens costs less than fetching expanded weights from L2.
// - The sums of the previous block are converted to y, a few rows per step, in registers of the
//   same loop: in a function of their own they would cost twice as much.
//
// The Intel Xeon that this was measured on reaches 4.9 TOP/s with products alone, and 2.5 to 2.8
// with 1:2 weights from L3 and 128 tokens; with all weights expanded before they are used, 1.0 to
// 2.2.
#pragma once

constexpr int kStepInputs = 64, kStepFours = kStepInputs / 4, kStepGroups = kStepInputs / 8;
constexpr int kTileBytes = 1024;
constexpr int kBlockTiles = 2;  // tiles of tokens, and of outputs, in a block
constexpr int kRingSteps = 4, kAhead = 2;
// This many tiles of outputs pass over a block of tokens before the next block, so that their
// packed weights stay in L2.
constexpr int kTilesTogether = 16;

// The scratch of linear_on_tiles, apart from weights that are expanded to a whole tile.
struct TileScratch {
    alignas(64) int8_t ring[kRingSteps][kBlockTiles][kTileBytes];
    alignas(64) int32_t sums[kBlockTiles * 16][kBlockTiles * kTileRows];
    alignas(64) int32_t weight_sums[kBlockTiles * kTileRows];  // in the form of split_sums
    // The inputs and weights of a last step with fewer inputs, padded with zeros.
    alignas(64) uint8_t last_inputs[kBlockTiles * 16][kStepInputs];
    alignas(64) int8_t last_weights[kBlockTiles][kTileBytes];
};
static_assert(sizeof(TileScratch) <= kTileScratchBytes);

// The sums of a block that wait to be converted to y, a few rows at a time. The loop of products
// keeps a local copy, which stores cannot alias, so that its state stays in registers.
struct Waiting {
    void begin(const Int8Linear& call, TileScratch& scratch, int tile, int tiles_here,
               int first_token, int tokens, int made) {
        const Int8Weight& w = *call.weight;
        const int first = tile * kTileRows, token = first_token + made;
        tiles = tiles_here;
        left = tokens - made;
        stride = call.stride;
        sums = scratch.sums[made];
        for (int i = 0; i < tiles; ++i)
            split_sums(w.sums + first + i * kTileRows, scratch.weight_sums + i * kTileRows);
        weight_sums = scratch.weight_sums;
        scales = w.scales + first;
        biases = w.bias + first;
        token_scales = call.x.scales + token;
        zero_points = call.x.zero_points + token;
        const size_t at = token * stride + (first - call.first_row);
        y = call.y + at;
        residual = call.residual ? call.residual + at : nullptr;
    }

    template <int Tiles, int Rows, bool Residual>
    [[gnu::always_inline]] void finish_rows() {
#pragma GCC unroll 8
        for (int row = 0; row < Rows; ++row) {
            const Vec scale = Vec::broadcast(token_scales[row]);
#pragma GCC unroll 2
            for (int tile = 0; tile < Tiles; ++tile) {
                const int first = tile * kTileRows;
                Vec lanes[kTileVectors];
                to_floats(less_zero_point(load_sums(sums + row * kBlockTiles * kTileRows + first),
                                          zero_points[row], weight_sums + first),
                          lanes);
#pragma GCC unroll 4
                for (int i = 0; i < kTileVectors; ++i) {
                    const int v = first + i * Vec::kWidth;
                    Vec value =
                        fma(lanes[i], mul(scale, Vec::load(scales + v)), Vec::load(biases + v));
                    const size_t index = row * stride + v;
                    if constexpr (Residual) value = add(value, Vec::load(residual + index));
                    value.store(y + index);
                }
            }
        }
        left -= Rows;
        sums += Rows * kBlockTiles * kTileRows;
        token_scales += Rows;
        zero_points += Rows;
        y += Rows * stride;
        if constexpr (Residual) residual += Rows * stride;
    }

    template <int Tiles, bool Residual>
    void finish_all() {
        while (left > 0) finish_rows<Tiles, 1, Residual>();
    }
    [[gnu::noinline]] void finish_all() {
        if (tiles == kBlockTiles)
            residual ? finish_all<kBlockTiles, true>() : finish_all<kBlockTiles, false>();
        else
            residual ? finish_all<1, true>() : finish_all<1, false>();
    }

    int tiles = 0, left = 0;  // `left`: rows
    size_t stride = 0;
    const int32_t *sums = nullptr, *weight_sums = nullptr, *zero_points = nullptr;
    const float *scales = nullptr, *biases = nullptr, *token_scales = nullptr;
    const float* residual = nullptr;
    float* y = nullptr;
};

// N tiles of weights, one step after the other.
template <int N>
struct PairSteps {
    PairSteps(const Int8Weight& w, int tile, TileScratch& scratch, bool fetches)
        : scratch(scratch),
          values(w.values + static_cast<size_t>(tile) * w.groups() * 64),
          bits(w.bits + static_cast<size_t>(tile) * w.groups()),
          groups(w.groups()),
          fetches(fetches) {}

    // The number of steps whose preparation always covers 64 inputs.
    int even_steps() const { return groups / kStepGroups - kAhead; }
    void begin() const {
        for (int step = 0; step < kAhead; ++step) expand(step);
    }
    [[gnu::always_inline]] void prepare_even(int step) const {
        expand_whole((step + kAhead) * kStepGroups, scratch.ring[(step + kAhead) % kRingSteps]);
    }
    [[gnu::noinline]] void prepare(int step) const { expand(step + kAhead); }
    const int8_t* weights(int tile, int step) const {
        return scratch.ring[step % kRingSteps][tile];
    }

    [[gnu::always_inline]] void expand_whole(int first, int8_t (*out)[kTileBytes]) const {
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) {
            const size_t at = static_cast<size_t>(n) * groups + first;
#pragma GCC unroll 8
            for (int g = 0; g < kStepGroups; ++g)
                expand_group(values + (at + g) * 64, bits[at + g], out[n] + g * 128);
            if (fetches) fetch(at + N * static_cast<size_t>(groups));
        }
    }

    void expand(int step) const {
        const int first = step * kStepGroups, count = std::min(kStepGroups, groups - first);
        int8_t (*out)[kTileBytes] = scratch.ring[step % kRingSteps];
        if (count == kStepGroups) return expand_whole(first, out);
        if (count <= 0) return;
        for (int n = 0; n < N; ++n) {
            const size_t at = static_cast<size_t>(n) * groups + first;
            for (int g = 0; g < count; ++g)
                expand_group(values + (at + g) * 64, bits[at + g], out[n] + g * 128);
            std::memset(out[n] + count * 128, 0, kTileBytes - count * 128);
        }
    }

    // Prefetches a step of the following tiles to L2: the hardware prefetcher stops at each page.
    void fetch(size_t group) const {
#pragma GCC unroll 8
        for (int g = 0; g < kStepGroups; ++g) __builtin_prefetch(values + (group + g) * 64, 0, 2);
        __builtin_prefetch(bits + group, 0, 2);
    }

    TileScratch& scratch;
    const int8_t* values;
    const uint64_t* bits;
    int groups;
    bool fetches;
};

template <int N>
struct DenseSteps {
    // `values` are the first tile's, [2 x groups][16][4], followed by the next tile's.
    DenseSteps(const int8_t* values, int groups, TileScratch& scratch)
        : scratch(scratch),
          values(values),
          bytes(static_cast<size_t>(groups) * 128),
          whole(groups / kStepGroups) {
        const size_t rest = bytes - static_cast<size_t>(whole) * kTileBytes;
        if (!rest) return;
        for (int n = 0; n < N; ++n) {
            int8_t* last = scratch.last_weights[n];
            std::memcpy(last, values + (n + 1) * bytes - rest, rest);
            std::memset(last + rest, 0, kTileBytes - rest);
        }
    }

    int even_steps() const { return whole; }
    void begin() const {}
    void prepare_even(int) const {}
    void prepare(int) const {}
    const int8_t* weights(int tile, int step) const {
        return step < whole ? values + tile * bytes + static_cast<size_t>(step) * kTileBytes
                            : scratch.last_weights[tile];
    }

    TileScratch& scratch;
    const int8_t* values;
    size_t bytes;
    int whole;  // steps of 64 inputs
};

// A block of a layer's tokens: one or two tiles, whose first rows are `spacing` tokens apart.
struct TokenBlock {
    const Int8Linear& call;
    TileScratch& scratch;
    int first, spacing, rows;  // `rows`: of each tile

    // Copies the last step's inputs if it has fewer than 64.
    void fill_last_inputs() const {
        const int inputs = call.weight->groups() * kGroupInputs, rest = inputs % kStepInputs;
        if (!rest) return;
        for (int i = 0; i < rows + spacing; ++i) {
            uint8_t* last = scratch.last_inputs[i];
            std::memcpy(last, call.x.values + (first + i) * call.x.stride + inputs - rest, rest);
            std::memset(last + rest, 0, kStepInputs - rest);
        }
    }
};

// Multiplies M tiles of tokens by N tiles of outputs, and meanwhile finishes `Rows` rows of the
// previous block per step.
template <int M, int N, int Rows, bool Residual, typename Weights>
[[gnu::noinline]] void multiply_block(const TokenBlock& block, const Weights& weights, int steps,
                                      Waiting& before) {
    const Int8Linear& call = block.call;
    const uint8_t* x = call.x.values + block.first * call.x.stride;
    size_t stride = call.x.stride;
    const size_t spacing = block.spacing;
    Waiting waiting = before;
    Tile<0>::zero();
    if constexpr (N > 1) Tile<1>::zero();
    if constexpr (M > 1) Tile<2>::zero();
    if constexpr (M > 1 && N > 1) Tile<3>::zero();
    const auto take_step = [&](int step) __attribute__((always_inline)) {
        Tile<6>::load(weights.weights(0, step), 64);
        Tile<4>::load(x, stride);
        multiply(Tile<0>(), Tile<4>(), Tile<6>());
        if constexpr (N > 1) {
            Tile<7>::load(weights.weights(1, step), 64);
            multiply(Tile<1>(), Tile<4>(), Tile<7>());
        }
        if constexpr (M > 1) {
            Tile<5>::load(x + spacing * stride, stride);
            multiply(Tile<2>(), Tile<5>(), Tile<6>());
            if constexpr (N > 1) multiply(Tile<3>(), Tile<5>(), Tile<7>());
        }
        if (waiting.left >= Rows) waiting.finish_rows<N, Rows, Residual>();
    };
    weights.begin();
    int step = 0;
    // The only branches in this loop always go the same way, so that the next products are under
    // way while these are computed.
    for (const int even = weights.even_steps(); step < even; ++step, x += kStepInputs) {
        weights.prepare_even(step);
        take_step(step);
    }
    const int whole = call.weight->groups() / kStepGroups;
    for (; step < steps; ++step, x += kStepInputs) {
        weights.prepare(step);
        if (step == whole) {
            x = block.scratch.last_inputs[0];
            stride = kStepInputs;
        }
        take_step(step);
    }
    waiting.finish_all<N, Residual>();
    constexpr size_t kStride = sizeof(block.scratch.sums[0]);
    Tile<0>::store(block.scratch.sums[0], kStride);
    if constexpr (N > 1) Tile<1>::store(block.scratch.sums[0] + kTileRows, kStride);
    if constexpr (M > 1) Tile<2>::store(block.scratch.sums[spacing], kStride);
    if constexpr (M > 1 && N > 1) Tile<3>::store(block.scratch.sums[spacing] + kTileRows, kStride);
}

// Calls use(rows per step as a constant): enough that the steps finish 32 rows.
template <typename Use>
void with_rows_a_step(int steps, const Use& use) {
    if (steps >= 32) return use(std::integral_constant<int, 1>());
    if (steps >= 16) return use(std::integral_constant<int, 2>());
    if (steps >= 11) return use(std::integral_constant<int, 3>());
    use(std::integral_constant<int, 6>());
}

// Calls visit(a block of tokens, its number of tiles as a constant, rows that the previous block
// has already computed). A last tile of fewer than 16 tokens is moved back so that it overlaps the
// tokens before it.
template <typename Visit>
void each_token_block(const Int8Linear& call, TileScratch& scratch, const Visit& visit) {
    const int rows = std::min(call.tokens, 16);
    for (int first = 0; first < call.tokens; first += kBlockTiles * 16) {
        const int left = call.tokens - first;
        if (left > 16) {
            const TokenBlock block{call, scratch, first, std::min(16, left - 16), rows};
            block.fill_last_inputs();
            visit(block, std::integral_constant<int, 2>(), 0);
        } else {
            const int start = call.tokens - rows;
            const TokenBlock block{call, scratch, start, 0, rows};
            block.fill_last_inputs();
            visit(block, std::integral_constant<int, 1>(), first - start);
        }
    }
}

// Tiles [begin, end), N at a time; weights_of(tile, whether these are the first tokens) gives their
// weights.
template <int N, typename WeightsOf>
void tiles_of_layer(const Int8Linear& call, TileScratch& scratch, Waiting& waiting, int begin,
                    int end, const WeightsOf& weights_of) {
    using Weights = decltype(weights_of(0, true));
    const int steps = (call.weight->groups() + kStepGroups - 1) / kStepGroups;
    if (waiting.tiles != N) waiting.finish_all();
    with_rows_a_step(steps, [&](auto rows) {
        each_token_block(call, scratch, [&](const TokenBlock& block, auto token_tiles, int made) {
            const auto multiply = call.residual
                                      ? multiply_block<token_tiles(), N, rows(), true, Weights>
                                      : multiply_block<token_tiles(), N, rows(), false, Weights>;
            for (int tile = begin; tile < end; tile += N) {
                multiply(block, weights_of(tile, block.first == 0), steps, waiting);
                waiting.begin(call, scratch, tile, N, block.first, block.rows + block.spacing,
                              made);
            }
        });
    });
}

template <int N>
void tiles_together(const Int8Linear& call, TileScratch& scratch, Waiting& waiting, int begin,
                    int end) {
    const Int8Weight& w = *call.weight;
    if (w.layout == Int8Layout::kPairs)
        return tiles_of_layer<N>(
            call, scratch, waiting, begin, end, [&](int tile, bool first_tokens) {
                return PairSteps<N>(w, tile, scratch, first_tokens && !call.in_cache);
            });
    if (w.layout == Int8Layout::kDense)
        return tiles_of_layer<N>(call, scratch, waiting, begin, end, [&](int tile, bool) {
            return DenseSteps<N>(w.values + tile * int8_expansion(w.columns), w.groups(), scratch);
        });
    int8_t* expanded = call.scratch + kTileScratchBytes;
    for (int tile = begin; tile < end; ++tile) {
        expand_tile(w, tile, expanded);
        tiles_of_layer<1>(call, scratch, waiting, tile, tile + 1,
                          [&](int, bool) { return DenseSteps<1>(expanded, w.groups(), scratch); });
    }
}

void linear_on_tiles(const Int8Linear& call, int tile_begin, int tile_end) {
    if (call.tokens <= 0) return;
    const TilesInUse tiles(std::min(call.tokens, 16));
    TileScratch& scratch = *reinterpret_cast<TileScratch*>(call.scratch);
    Waiting waiting;
    const int even = tile_begin + (tile_end - tile_begin) / kBlockTiles * kBlockTiles;
    for (int tile = tile_begin; tile < even; tile += kTilesTogether)
        tiles_together<kBlockTiles>(call, scratch, waiting, tile,
                                    std::min(even, tile + kTilesTogether));
    if (even < tile_end) tiles_together<1>(call, scratch, waiting, even, tile_end);
    waiting.finish_all();
}
