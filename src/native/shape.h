// What models of every number type have in common: sizes, architecture, and the batch that they run
// on.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace sparsebert {

enum class Pooling { kCls, kMean, kMeanSqrtLength, kMax };

// Which tokens' last hidden states are read. Everything after the last attention is computed only
// for those.
enum class Reads { kEveryToken, kFirstTokens };

// What a head reads: one vector per sequence, or every token.
enum class HeadInput { kNone, kFirstToken, kMean, kEachToken };

// A head is a chain: its input, then, where the model has them, a linear layer with activation and
// a LayerNorm, and a last linear layer.
struct HeadShape {
    HeadInput input = HeadInput::kNone;
    Activation activation = Activation::kNone;
    bool decoder = false;  // masked LM: the last layer is a table of the vocabulary
    int width = 0;         // inputs of the last layer
    int outputs = 0;       // of the last layer

    bool per_sequence() const {
        return input == HeadInput::kFirstToken || input == HeadInput::kMean;
    }
    Reads reads() const {
        return input == HeadInput::kFirstToken ? Reads::kFirstTokens : Reads::kEveryToken;
    }
};

// The speed of a rotary embedding: the base of its angles (0: no rotary embedding) and the factor
// that positions are divided by.
struct RotarySpeed {
    float theta = 0.0f, factor = 1.0f;
    bool operator==(const RotarySpeed& other) const {
        return theta == other.theta && factor == other.factor;
    }
};

// The distance from which on all keys are in a side's last bucket (see `Positions`).
constexpr int kFarthestBucket = 128;

// One layer's attention: the largest distance at which tokens attend to each other, and the rotary
// embedding.
struct LayerAttention {
    int window = kEverything;
    RotarySpeed rotary;
};

// Disentangled attention (DeBERTa; He et al. 2020, arXiv:2006.03654): the score of query i and key
// j is (q_i k_j + q_i pk + k_j pq) / sqrt(terms x head size), where pk and pq are the layer's key
// and query projections of an embedding of their distance i - j.
struct Disentangled {
    int span = 0;                   // there are 2 span rows of embeddings; 0: not disentangled
    int buckets = 0;                // of distances; 0: each distance has its own row
    int farthest = 0;               // distance that the buckets extend to
    int terms = 1;                  // of a score
    bool keys = false;              // whether there is pk ("content to position"),
    bool queries = false;           // and pq ("position to content")
    std::vector<float> embeddings;  // [2 span][hidden]

    int row(int distance) const;  // `distance`: query minus key
};

struct ModelShape {
    int hidden_size = 0, intermediate_size = 0, heads = 0;
    int embedding_size = 0;  // if not the hidden size, embeddings are projected
    int vocabulary = 0, types = 0;
    int positions = 0;       // rows before first_position plus the most tokens of a sequence
    int first_position = 0;  // row of a sequence's first token; the one before it is for padding
    float epsilon = 1e-12f;
    Activation activation = Activation::kGelu;
    bool norm_first = false;       // LayerNorm before attention and feed-forward, and at the end
    bool fused_attention = false;  // queries, keys and values in one linear layer
    bool gated = false;            // the feed-forward computes activation(gate) x intermediate
    bool fused_gate = false;       // gate and intermediate are one linear layer, in this order
    std::vector<LayerAttention> layers_attention;
    std::vector<float> relative_bias;  // [buckets of distances][heads], or empty
    std::vector<float> slopes;  // ALiBi: how fast each head's scores fall with distance; or empty
    Disentangled disentangled;
    HeadShape head;
    int widest_shared = 0;  // most inputs of any layer whose rows share patterns

    int longest() const { return positions - first_position; }
    int intermediate_rows() const { return gated ? 2 * intermediate_size : intermediate_size; }
};

// Token ids of a batch, concatenated; sequence s is [offsets[s], offsets[s + 1]).
struct Batch {
    const int32_t* ids;
    const int32_t* types;
    const int32_t* offsets;
    int sequences;
    const int32_t* position_ids = nullptr;  // of each token
    // How many of each sequence's first tokens are attended to; null: all of them.
    const int32_t* keys = nullptr;

    int tokens() const { return offsets[sequences]; }
    int keys_of(int sequence) const {
        return keys ? keys[sequence] : offsets[sequence + 1] - offsets[sequence];
    }
};

}  // namespace sparsebert
