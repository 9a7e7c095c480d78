// One thread's share of one micro-batch: the encoder's steps over token blocks.
#pragma once

#include "blocks.h"
#include "distances.h"
#include "model.h"
#include "pass_thread.h"
#include "positions.h"
#include "workspace.h"

namespace sparsebert {

// State shared by the threads of a pass.
struct Shared {
    Shared(const Model& model, const Kernels& kernels, ThreadPool& pool, Workspace& workspace,
           const Batch& batch, Reads reads, const Positions& positions, const Distances& distances);

    const Model& model;
    const Kernels& kernels;
    ThreadPool& pool;
    Workspace& workspace;
    const Positions& positions;
    const Distances& distances;
    Batch batch;       // the micro-batch; offsets are relative to its first token
    Blocks blocks;     // its tokens
    Blocks sequences;  // its sequences, one column each: pooled vectors or first tokens
    Reads reads;
    // Either each thread processes whole blocks and never waits between linear layers, or all
    // threads split the rows of each layer, one block at a time, with a barrier after each step.
    bool by_blocks;
    size_t scratch_floats;  // per thread
    HeadQueue attention;
};

class Pass : private PassThread {
  public:
    Pass(Shared& shared, int thread);

    // Runs the encoder, up to the last hidden states of the tokens that are read.
    void encode();

    void write_hidden(float* out);
    void write_pooled(Pooling pooling, bool normalize, float* out);
    void write_head(float* out);

  private:
    template <typename Step>
    void for_my_blocks(Step step);

    void embed(int block);
    void linear(const Dense& layer, const float* x, const float* residual, float* y, int width,
                Activation activation = Activation::kNone);
    void norm(const Norm& norm, int features, const float* x, float* y, int width);
    const float* normalised(const Norm& norm, int block);  // LayerNorm of hidden states
    void project(const Layer& layer, int block);           // query, key, value
    void attend(int layer_index);
    void keep_first_tokens();
    void intermediate(const Layer& layer, const float* x, float* y, int width);
    void feed_forward(const Layer& layer, int block);
    float* private_block(Floats& buffer, int features, int block);
    // The first token of each sequence, or the mean of its tokens, as columns of `vectors`.
    void gather_sequences(const float* tokens, bool mean, float* vectors) const;
    bool is_last(int layer_index) const;
    void head_logits(const float* x, float* y, float* logits, int width);
    void write_sequence_logits(float* out);
    void write_token_logits(float* out);
    void write_tokens(const float* block_data, int features, int block, int token_begin,
                      int token_end, float* out) const;

    Shared& shared_;
    const Model& model_;
    const Kernels& kernels_;
    Workspace& workspace_;
    // Blocks of all tokens, or of the first token of each sequence.
    const Blocks* blocks_;
    float* hidden_;   // the layer's input and, after LayerNorm, its output
    float* context_;  // the output of attention
    bool by_blocks_;
    float* scratch_;
};

}  // namespace sparsebert
