// One thread's share of one micro-batch in int8: the encoder's steps over runs of tokens.
#pragma once

#include <vector>

#include "../memory.h"
#include "../pass_thread.h"
#include "../positions.h"
#include "choice.h"
#include "distances.h"
#include "model.h"

namespace sparsebert {

// Memory for a run's activations, kept between runs. Rows are token-major.
struct Int8Workspace {
    Bytes hidden, context, quantized;  // Int8Tokens
    Bytes first;                       // the same for each sequence's first token
    Bytes heads;                       // Int8Heads
    Bytes block;    // what one run of tokens needs, for each thread that has its own
    Bytes scratch;  // for each thread: one head's attention, one expanded tile
    Bytes pooled;   // the head's input of each sequence, and what it computes
};

// The most tokens of a run, which passes through several layers before the next tokens do, and of a
// piece of it, which passes through one layer whose wide rows of floats are then quantised.
struct Int8Runs {
    int run, piece;
};

// A masked-LM head computes a few tiles of the vocabulary at a time: the kernels write whole tiles,
// and the output has no room for the padding of the last one.
constexpr int kDecodedTiles = 16, kDecodedColumns = kDecodedTiles * kTileRows;

// Tokens on their way through the layers, one row each.
struct Int8Tokens {
    float* hidden;       // the residual stream
    float* context;      // the output of attention, and a head's intermediate result
    Int8Rows quantized;  // of `hidden`
};

// Some rows of a matrix that begins at `first`.
inline FloatRows rows_of(float* first, size_t stride, Range rows) {
    return {first + rows.begin * stride, stride, rows.size()};
}

// State shared by the threads of a pass.
struct Int8Shared {
    Int8Shared(const Int8Model& model, const Int8Choice& choice, ThreadPool& pool,
               Int8Workspace& workspace, const Batch& batch, Reads reads,
               const Positions& positions, const Int8Distances& distances);

    const Int8Model& model;
    const Int8Choice& choice;
    ThreadPool& pool;
    Int8Workspace& workspace;
    const Positions& positions;
    const Int8Distances& distances;
    Batch batch;  // the micro-batch; offsets are relative to its first token
    Reads reads;

    // Few tokens: all threads split the rows of each layer, with a barrier after each step. Many:
    // each thread takes the tokens between two cuts through all layers; if the cuts fall between
    // sequences (`aligned`), there are no barriers.
    bool by_rows;
    bool aligned;
    std::vector<int> cuts;       // by tokens: [threads + 1]
    std::vector<int> sequences;  // by tokens, aligned: the first sequence of each thread
    Int8Runs runs;
    HeadQueue attention;  // if the threads are not aligned

    int hidden_stride, projection_stride, intermediate_stride, embedding_stride;  // floats
    Int8Tokens all;
    Int8Tokens first;  // of each sequence: after the last attention, if no others are read
    Int8Heads heads;
    Int8Rows gathered;                  // the head's input of each sequence
    float* gathered_rows;               // the same in floats, and what the head computes
    float* logits;                      // of a few tiles of the vocabulary, for each thread
    size_t block_bytes, scratch_bytes;  // per thread
};

class Int8Pass : private PassThread {
  public:
    Int8Pass(Int8Shared& shared, int thread);

    // Runs the encoder, up to the last hidden states of the tokens that are read.
    void encode();

    void write_hidden(float* out);
    void write_pooled(Pooling pooling, bool normalize, float* out);
    void write_head(float* out);

  private:
    // This thread's tokens of a run: all of them or, if rows are split, its part.
    Range share_of(Range run) const;
    // Calls step(token, its place in the run) for each of them.
    template <typename Step>
    void each_token(Range run, Step step);
    template <typename Step>
    void each_run(Step step);
    template <typename Step>
    void each_piece(Range run, Step step);
    template <typename Step>
    static void cut(Range whole, int most_tokens, Step step);

    void linear(const Int8Weight& weight, const Int8Rows& x, int tokens, const float* residual,
                float* y, size_t stride, bool in_cache = false);
    Int8Rows quantized_from(int row) const;
    float* hidden_row(int row) const;
    FloatRows hidden_rows(Range rows) const;
    int first_row(int sequence) const;
    bool is_last(int layer) const;

    void embed(Range piece);
    void normalise(const Int8Norm& norm, Range run);  // hidden states, for the layer that follows
    void project(int layer, Range run);
    void project_piece(const Int8Layer& layer, const Positions::Rotary& rotary, Range piece,
                       bool first);
    void rotate(const Positions::Rotary& rotary, float* projections, size_t part,
                int position) const;
    void attend(int layer);
    void attend_head(int layer, int sequence, int head);
    void keep_first_tokens();
    void feed_forward(const Int8Layer& layer, Range run);
    void gather_sequence(int sequence, float* row) const;  // the head's input
    void finish_dense(const FloatRows& rows, const Int8Rows* out, int at) const;
    void write_answer(const float* row, float* out) const;  // the last layer
    void write_sequence_logits(float* out);
    void transform_tokens(const Int8Rows* out);
    void write_token_logits(float* out);
    void write_decoded(float* out);

    Int8Shared& shared_;
    const Int8Model& model_;
    const Int8Kernels& kernels_;
    const Batch& batch_;
    Int8Tokens rows_;  // all tokens, or the first of each sequence
    Range mine_;       // the rows that this thread takes through the layers
    uint8_t* scratch_;
    // This thread's own, or shared by all threads.
    float* wide_;     // of a piece: projections [tokens][3][hidden], then the intermediate layer
    Int8Rows bytes_;  // of a run: context, then the intermediate layer
};

}  // namespace sparsebert
