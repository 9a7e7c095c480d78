// The kernels that the int8 encoder requires of an instruction set: one table of functions, filled
// once per set.
//
// Activations are token-major: one row per token, its features in consecutive bytes or floats. In a
// linear layer a SIMD lane is an output row: 16 rows (a tile) of weights are multiplied by four
// inputs of one token at a time, broadcast, as vpdpbusd requires. For 1:2 weights a bit per pair
// then chooses between two broadcasts. Integer sums are exact, so every set gives the same results.
//
// The eight inputs of a group are stored in the order 0 2 4 6 1 3 5 7: the first of each pair, then
// the second, so that either half is one broadcast of four bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../kernels/kernels.h"

namespace sparsebert {

constexpr int kTileRows = 16;
constexpr int kGroupInputs = 8;

enum class Int8Layout { kPairs, kSharedPairs, kDense, kBitmap, kTable };

// int8 weights [rows outputs][columns inputs] as they lie in memory; weight = scale[row] x value.
//   kPairs   values [tiles][groups][16][4] and bits uint64 [tiles][groups]: 1:2; bit 4 r + i of a
//            word is the offset (0 or 1) of row r's kept weight in pair i of the group
//   kSharedPairs  values as kDense of [rows][columns / 2], but a tile's inputs in their own order;
//            `second` [blocks of shared_rows][4 x fours]: all bits of byte p set where the block
//            keeps the second input of pair p (see shared_rows.h)
//   kDense   values [tiles][groups][2][16][4]
//   kBitmap  values [panels][rows][kept] and bits uint64 [panels][rows]: N:M, as in `Matrix`;
//            converted at load (weights.h), no kernel reads it
//   kTable   values [rows][columns]
// Vectors are padded with zeros to a whole tile.
struct Int8Weight {
    Int8Layout layout = Int8Layout::kDense;
    int rows = 0;
    int columns = 0;
    int panel_columns = kPanelColumns;  // kBitmap
    int kept = kPanelColumns;           // kBitmap
    int shared_rows = 0;                // kSharedPairs: a multiple of kTileRows
    const int8_t* values = nullptr;
    const uint64_t* bits = nullptr;
    const uint8_t* second = nullptr;
    const float* scales = nullptr;
    const int32_t* sums = nullptr;  // of each row's values
    const float* bias = nullptr;
    bool small_pairs = false;  // has_small_pairs (weights.h), if the kernels ask for it

    int tiles() const { return (rows + kTileRows - 1) / kTileRows; }
    int groups() const { return (columns + kGroupInputs - 1) / kGroupInputs; }
};

// Rows of uint8: x = scale x (value - zero), with one scale and one zero point per row.
struct Int8Rows {
    uint8_t* values;
    size_t stride;  // bytes from one row to the next
    float* scales;
    int32_t* zero_points;
};

// Bytes from one row of quantised features to the next: an odd number of cache lines, so that the
// rows of a tile do not map to the same sets of L1.
inline size_t int8_stride(int features) { return (round_up(features, 64) / 64 | 1) * 64; }

// y = W x + bias + residual for `tokens` rows.
struct Int8Linear {
    const Int8Weight* weight;
    Int8Rows x;
    int tokens;
    const float* residual;  // [tokens][stride], or null
    float* y;               // [tokens][stride]
    size_t stride;          // floats; at least the weight's rows rounded up to a tile
    int8_t* scratch;        // int8_linear_scratch(columns) bytes, aligned to a cache line
    int first_row;          // row of the weight with which y and residual start
    bool in_cache = false;  // an earlier call has read the weights, as far as they fit
};

// Bytes of a tile as kDense, for layouts that are expanded to it.
inline size_t int8_expansion(int columns) {
    return static_cast<size_t>(round_up(columns, kGroupInputs)) * kTileRows;
}

// Lookup tables (lookup.inl): tables of 8 groups and 64 tokens, and the sums of 48 tiles, kept in
// L2.
constexpr int kLookupGroups = 8, kLookupTokens = 64, kLookupTiles = 48;
constexpr int kLookupTableBytes = kLookupGroups * 16 * kLookupTokens * 4;

// Tile registers (linear_on_tiles.inl): expanded weights, sums and the padding of a last step.
constexpr int kTileScratchBytes = 18 * 1024;

inline size_t int8_linear_scratch(int columns) {
    constexpr size_t kLookupSums = sizeof(int32_t) * kLookupTiles * kTileRows * kLookupTokens;
    return std::max(kTileScratchBytes + int8_expansion(columns), kLookupTableBytes + kLookupSums);
}

// Queries, keys and values of every token, quantised symmetrically for each token and head: values
// int8 [tokens][3][heads][depth] (queries as uint8 with 128 added), scales [tokens][3][heads].
// `depth` is the head size rounded up to a multiple of 16, padded with zeros.
struct Int8Heads {
    uint8_t* values;
    float* scales;
    int heads;
    int head_size;

    int depth() const { return round_up(head_size, 16); }
    size_t row() const { return static_cast<size_t>(3) * heads * depth(); }
};

// The factor of content scores; log2 e turns exponentials into powers of two.
inline float int8_score_factor(int head_size, int terms) {
    return 1.44269504f / std::sqrt(static_cast<float>(head_size * terms));
}

// Disentangled attention of one head: keys and queries of distances (see distances.h). The pointers
// are at distance 0 (key minus query). Values are [depth / 4][stride][4], so that those of
// neighbouring keys are a tile of weights, or of inputs.
struct Int8HeadDistances {
    const int8_t* keys = nullptr;       // null if not disentangled
    const uint8_t* queries = nullptr;   // with 128 added
    const int32_t* key_sums = nullptr;  // of each key's values
    const float* key_scales = nullptr;  // times `int8_score_factor`
    const float* query_scales = nullptr;
    size_t stride = 0;
    int terms = 1;
};

// One head of one sequence; `at` is its first token. Writes the context of its first `queries`
// tokens.
struct Int8Attention {
    Int8Heads at;
    int head;
    int tokens;
    int keys;        // how many of the first tokens are attended to
    int queries;     // how many of the first tokens attend
    float* context;  // [queries][stride]; writes this head's head_size columns
    size_t stride;
    uint8_t* scratch;  // int8_attention_scratch(tokens, depth) bytes, aligned to a cache line
    // As in `Attention`, but for the distance j - i, and multiplied by log2 e.
    const float* bias = nullptr;
    int window = kEverything;
    Int8HeadDistances distances{};
};

// The most queries of a block: a tile. Two blocks are in flight at a time.
constexpr int kTileQueries = 16;

// Bytes from one query's scores, or probabilities, to the next's: an odd number of cache lines, so
// that the rows of a tile do not map to the same sets of L1. Tiles of probabilities reach up to 48
// past the last key.
inline size_t int8_score_stride(int tokens) { return (round_up(tokens, 16) / 16 | 1) * 64; }
inline size_t int8_probability_stride(int tokens) {
    return (round_up(round_up(tokens, 16) + 48, 64) / 64 | 1) * 64;
}

inline size_t int8_attention_scratch(int tokens, int depth) {
    const size_t padded = round_up(tokens, 16);
    return padded * depth * 2                               // keys and values in tiles
           + padded * 4 * 4                                 // sums, scales, logarithms, inverses
           + kTileQueries * (2 * int8_score_stride(tokens)  // two blocks
                             + int8_probability_stride(tokens) +
                             2 * sizeof(int32_t) * depth);  // sums of two contexts
}

// `count` rows of floats, `stride` floats apart.
struct FloatRows {
    float* values;
    size_t stride;
    int count;

    float* row(int i) const { return values + i * stride; }
};

// The most rows that kernels take through each step together (rows.inl).
constexpr int kRowsTogether = 4;

struct Int8Norm {
    const float* gamma = nullptr;  // padded with zeros to a multiple of 16
    const float* beta = nullptr;
    int features = 0;
    float epsilon = 0.0f;
};

struct Int8Kernels {
    const char* name;
    void (*linear)(const Int8Linear&, int tile_begin, int tile_end);
    // The sum of each row's values, padded to a whole number of tiles.
    void (*row_sums)(const Int8Weight&, int32_t* out, int8_t* scratch);
    void (*attention)(const Int8Attention&);
    // Replaces each x [features] by activation(x) and then, unless `out` is null, quantises it to
    // `out` from its row `row` on. Up to a multiple of 16, x must be readable and zero past the
    // last feature.
    void (*activate)(const FloatRows& x, int features, Activation activation, const Int8Rows* out,
                     int row);
    // The same for two halves: x[i] becomes activation(x[i]) x x[second + i], second >= features.
    // Both must be readable up to features rounded up to 16.
    void (*gate)(const FloatRows& x, size_t second, int features, Activation activation,
                 const Int8Rows* out, int row);
    // As `activate`, but with LayerNorm.
    void (*norm)(const FloatRows& x, const Int8Norm&, const Int8Rows* out, int row);
    // Quantises one token's projections [3][stride] to its place in `heads`.
    void (*split_heads)(const float* projections, size_t stride, const Int8Heads& heads,
                        size_t token);
    // y[i] += scale x row[i].
    void (*add_scaled)(const int8_t* row, float scale, int count, float* y);
    float (*dot)(const float* a, const float* b, int count);
    // As in `Kernels`.
    void (*rotate)(float* a, float* b, const float* cosines, const float* sines, int count);
    // Copies the inputs of one token that a kSharedPairs block reads to `out`: the four of each
    // group of eight that `second` chooses.
    void (*gather)(const uint8_t* x, const uint8_t* second, int fours, uint8_t* out);
    // Whether `linear` is faster for weights that are marked as having small pairs.
    bool asks_for_small_pairs = false;
};

// `linear` of AVX2 without VNNI for such weights, without and with lookup tables (avx2_bytes.cpp).
void linear_of_small_pairs(const Int8Linear&, int tile_begin, int tile_end);
void lookup_of_small_pairs(const Int8Linear&, int tile_begin, int tile_end);
// The same of SSE4.1 (sse41_bytes.cpp).
void linear_of_small_pairs_sse41(const Int8Linear&, int tile_begin, int tile_end);

extern const Int8Kernels kPortableInt8;
extern const Int8Kernels kSse41Int8;
extern const Int8Kernels kAvx2Int8;
extern const Int8Kernels kAvx2LookupInt8;
extern const Int8Kernels kAvx2VnniInt8;
extern const Int8Kernels kAvx2VnniLookupInt8;
extern const Int8Kernels kAvx512VlVnniInt8;
extern const Int8Kernels kAvx512VlVnniLookupInt8;
extern const Int8Kernels kAvx512VnniInt8;
extern const Int8Kernels kAvx512VnniLookupInt8;
extern const Int8Kernels kAvx512AmxInt8;
extern const Int8Kernels kNeonInt8;
extern const Int8Kernels kNeonDotprodInt8;
extern const Int8Kernels kNeonDotprodLookupInt8;
extern const Int8Kernels kNeonI8mmInt8;

}  // namespace sparsebert
