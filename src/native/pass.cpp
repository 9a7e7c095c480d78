#include "pass.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.h"
#include "shared_rows.h"

namespace sparsebert {
namespace {

// Adds row `id` of an embedding table to `out`.
void add_row(const Matrix& table, int id, float* out) {
    const size_t at = static_cast<size_t>(id) * table.columns;
    if (table.half) {
        const uint16_t* row = static_cast<const uint16_t*>(table.values) + at;
        for (int f = 0; f < table.columns; ++f) out[f] += half_to_float(row[f]);
    } else {
        const float* row = static_cast<const float*>(table.values) + at;
        for (int f = 0; f < table.columns; ++f) out[f] += row[f];
    }
}

// Rows are divided in units of 16: one cache line of biases, and a multiple of the register tiles.
constexpr int kRowUnit = 16;

}  // namespace

Shared::Shared(const Model& model_, const Kernels& kernels_, ThreadPool& pool_,
               Workspace& workspace_, const Batch& batch_, Reads reads_,
               const Positions& positions_, const Distances& distances_)
    : model(model_),
      kernels(kernels_),
      pool(pool_),
      workspace(workspace_),
      positions(positions_),
      distances(distances_),
      batch(batch_),
      blocks(batch_.tokens(), pool_.threads(), kernels_.block_tokens),
      sequences(batch_.sequences),
      // With few tokens, the first ones alone would fill as many SIMD lanes as all of them.
      reads(model_.layers.empty() || sequences.padded() == blocks.padded() ? Reads::kEveryToken
                                                                           : reads_),
      by_blocks(blocks.count() % pool_.threads() == 0 || blocks.count() >= 4 * pool_.threads()),
      attention(model_.layers.size()) {
    const size_t padded = blocks.padded();
    const size_t hidden = model.hidden_size;
    const HeadShape& head = model.head;
    for (Floats* buffer : {&workspace.hidden, &workspace.context}) buffer->reserve(hidden * padded);
    workspace.sum.reserve(std::max(model.hidden_size, head.width) * padded);
    workspace.projections.reserve(3 * hidden * padded);
    const size_t private_tokens = static_cast<size_t>(kernels.block_tokens) * pool.threads();
    const size_t first = reads == Reads::kFirstTokens ? sequences.padded() : 0;
    workspace.first.reserve(2 * hidden * first);
    workspace.intermediate.reserve(model.intermediate_rows() *
                                   std::max(by_blocks ? private_tokens : padded, first));
    if (model.projection.weight.values) workspace.embedded.reserve(model.embedding_size * padded);
    if (head.per_sequence()) workspace.gathered.reserve((hidden + head.width) * sequences.padded());
    if (head.input != HeadInput::kNone)
        workspace.logits.reserve(static_cast<size_t>(head.outputs) *
                                 (head.per_sequence() ? sequences.padded() : kernels.block_tokens));
    const int tokens = longest(batch);
    const size_t head_size = model.hidden_size / model.heads;
    scratch_floats = std::max(
        {4 * head_size * round_up(tokens, kLaneTokens) + attention_scratch(tokens),
         static_cast<size_t>(model.embedding_size) * kLaneTokens, model.linear_scratch_floats});
    scratch_floats = (scratch_floats + 15) / 16 * 16;
    workspace.scratch.reserve(scratch_floats * pool.threads());
}

Pass::Pass(Shared& shared, int thread)
    : PassThread(shared.pool, thread, shared.by_blocks),
      shared_(shared),
      model_(shared.model),
      kernels_(shared.kernels),
      workspace_(shared.workspace),
      blocks_(&shared.blocks),
      hidden_(shared.workspace.hidden.get()),
      context_(shared.workspace.context.get()),
      by_blocks_(shared.by_blocks),
      scratch_(shared.workspace.scratch.get() + shared.scratch_floats * thread) {}

template <typename Step>
void Pass::for_my_blocks(Step step) {
    const int count = blocks_->count();
    const Range part = by_blocks_ ? share_of_all(count) : Range{0, count};
    for (int block = part.begin; block < part.end; ++block) step(block);
}

void Pass::linear(const Dense& layer, const float* x, const float* residual, float* y, int width,
                  Activation activation) {
    const Range rows = share(layer.weight.rows, kRowUnit);
    run_linear(kernels_, {&layer.weight, layer.bias, x, residual, y, width, activation}, rows.begin,
               rows.end, scratch_);
}

void Pass::norm(const Norm& norm, int features, const float* x, float* y, int width) {
    const Range lanes = share(width, kLaneTokens);
    kernels_.layer_norm(x, y, norm.gamma, norm.beta, features, width, lanes.begin, lanes.end,
                        model_.epsilon);
}

const float* Pass::normalised(const Norm& norm, int block) {
    const int hidden = model_.hidden_size;
    const float* x = blocks_->at(hidden_, hidden, block);
    if (!norm.gamma) return x;  // the first layer: the embeddings' LayerNorm has made its input
    float* y = blocks_->at(workspace_.sum.get(), hidden, block);
    this->norm(norm, hidden, x, y, blocks_->width(block));
    sync();
    return y;
}

// The place of a block's values that no other thread reads: a thread that works through whole
// blocks reuses the same few pages for each, so that they stay in its L2.
float* Pass::private_block(Floats& buffer, int features, int block) {
    if (by_blocks_)
        return buffer.get() + static_cast<size_t>(features) * kernels_.block_tokens * thread_;
    return blocks_->at(buffer.get(), features, block);
}

void Pass::embed(int block) {
    const Batch& batch = shared_.batch;
    const int features = model_.embedding_size;
    const int width = blocks_->width(block), start = blocks_->start(block);
    const bool projects = model_.projection.weight.values;
    Floats& buffer = projects ? workspace_.embedded : workspace_.hidden;
    float* x = blocks_->at(buffer.get(), features, block);
    const Range lanes = share(width, kLaneTokens);
    for (int lane = lanes.begin; lane < lanes.end; lane += kLaneTokens) {
        std::memset(scratch_, 0, sizeof(float) * features * kLaneTokens);
        for (int i = 0; i < kLaneTokens; ++i) {
            const int token = start + lane + i;
            if (token >= batch.tokens()) break;
            float* row = scratch_ + static_cast<size_t>(i) * features;
            add_row(model_.words, batch.ids[token], row);
            if (model_.type_table.values) add_row(model_.type_table, batch.types[token], row);
            if (model_.task_table.values) add_row(model_.task_table, 0, row);
            if (model_.position_table.values)
                add_row(model_.position_table, batch.position_ids[token], row);
        }
        for (int f = 0; f < features; ++f)
            for (int i = 0; i < kLaneTokens; ++i)
                x[static_cast<size_t>(f) * width + lane + i] =
                    scratch_[static_cast<size_t>(i) * features + f];
    }
    norm(model_.embedding_norm, features, x, x, width);
    if (projects) {
        sync();
        linear(model_.projection, x, nullptr, blocks_->at(hidden_, model_.hidden_size, block),
               width);
    }
}

void Pass::project(const Layer& layer, int block) {
    const int hidden = model_.hidden_size, width = blocks_->width(block);
    const float* x = blocks_->at(hidden_, hidden, block);
    if (model_.norm_first) x = normalised(layer.attention_norm, block);
    float* y = blocks_->at(workspace_.projections.get(), 3 * hidden, block);
    const size_t part = static_cast<size_t>(hidden) * width;
    linear(layer.query, x, nullptr, y, width);
    if (model_.fused_attention) return;
    linear(layer.key, x, nullptr, y + part, width);
    linear(layer.value, x, nullptr, y + 2 * part, width);
    if (!layer.query_norm.gamma) return;
    sync();
    norm(layer.query_norm, hidden, y, y, width);
    norm(layer.key_norm, hidden, y + part, y + part, width);
}

// Takes (sequence, head) pairs until none is left. Each is gathered from the blocks it spans into
// scratch memory [head size][tokens], and its context is scattered back.
void Pass::attend(int layer_index) {
    const Batch& batch = shared_.batch;
    const int hidden = model_.hidden_size, heads = model_.heads, size = hidden / heads;
    const Positions::Rotary rotary = shared_.positions.rotary(layer_index);
    const float scale = 1.0f / std::sqrt(static_cast<float>(size * model_.disentangled.terms));
    const bool first = is_last(layer_index) && shared_.reads == Reads::kFirstTokens;
    shared_.attention.take(layer_index, batch.sequences, heads, [&](int sequence, int head) {
        const int begin = batch.offsets[sequence], end = batch.offsets[sequence + 1];
        const int first_row = head * size;
        const int tokens = end - begin, stride = round_up(tokens, kLaneTokens);
        const int queries = first ? kLaneTokens : stride;
        float* parts[4];
        for (int p = 0; p < 4; ++p) parts[p] = scratch_ + static_cast<size_t>(p) * size * stride;
        for (int p = 0; p < 3; ++p) {
            blocks_->each_piece(begin, end, [&](int block, int lane, int token, int count) {
                const int width = blocks_->width(block);
                const float* from = blocks_->at(workspace_.projections.get(), 3 * hidden, block) +
                                    static_cast<size_t>(p * hidden + first_row) * width + lane;
                for (int d = 0; d < size; ++d)
                    std::memcpy(parts[p] + static_cast<size_t>(d) * stride + (token - begin),
                                from + static_cast<size_t>(d) * width, sizeof(float) * count);
            });
        }
        for (int d = 0; d < size; ++d)  // queries past the end: any finite number
            for (int i = tokens; i < stride; ++i)
                parts[0][static_cast<size_t>(d) * stride + i] = 0.0f;
        for (int p = 0; rotary.cosines && p < 2; ++p)
            for (int d = 0; d < size / 2; ++d) {
                float* a = parts[p] + static_cast<size_t>(d) * stride;
                kernels_.rotate(a, a + static_cast<size_t>(size / 2) * stride,
                                rotary.cosines + d * rotary.stride,
                                rotary.sines + d * rotary.stride, tokens);
            }
        const HeadDistances distances = shared_.distances.of(layer_index, head);
        kernels_.attention({parts[0], parts[1], parts[2], parts[3],
                            scratch_ + static_cast<size_t>(4) * size * stride,
                            batch.keys_of(sequence), queries, stride, size, scale,
                            shared_.positions.bias(layer_index, head, tokens),
                            shared_.positions.window(layer_index), distances.keys,
                            distances.queries, distances.stride});
        const int written = first ? begin + 1 : end;
        blocks_->each_piece(begin, written, [&](int block, int lane, int token, int count) {
            const int width = blocks_->width(block);
            float* to = blocks_->at(context_, hidden, block) +
                        static_cast<size_t>(first_row) * width + lane;
            for (int d = 0; d < size; ++d)
                std::memcpy(to + static_cast<size_t>(d) * width,
                            parts[3] + static_cast<size_t>(d) * stride + (token - begin),
                            sizeof(float) * count);
        });
    });
}

// Rows are divided so that a thread multiplies gates with values it has computed itself.
void Pass::intermediate(const Layer& layer, const float* x, float* y, int width) {
    if (!model_.gated) return linear(layer.intermediate, x, nullptr, y, width, model_.activation);
    const int half = model_.intermediate_size;
    const size_t second = static_cast<size_t>(half) * width;
    const Range rows = share(half, kRowUnit);
    const auto run = [&](const Dense& dense, int first, float* to, Activation activation) {
        run_linear(kernels_, {&dense.weight, dense.bias, x, nullptr, to, width, activation},
                   first + rows.begin, first + rows.end, scratch_);
    };
    if (model_.fused_gate) {
        run(layer.intermediate, 0, y, model_.activation);
        run(layer.intermediate, half, y, Activation::kNone);
    } else {
        run(layer.gate, 0, y, model_.activation);
        run(layer.intermediate, 0, y + second, Activation::kNone);
    }
    float* mine = y + static_cast<size_t>(rows.begin) * width;
    kernels_.multiply(mine, mine + second, static_cast<size_t>(rows.end - rows.begin) * width);
}

void Pass::feed_forward(const Layer& layer, int block) {
    const int hidden = model_.hidden_size, width = blocks_->width(block);
    float* x = blocks_->at(hidden_, hidden, block);
    float* wide = private_block(workspace_.intermediate, model_.intermediate_rows(), block);
    const float* context = blocks_->at(context_, hidden, block);
    if (model_.norm_first) {
        linear(layer.attention_output, context, x, x, width);
        sync();
        intermediate(layer, normalised(layer.output_norm, block), wide, width);
        sync();
        linear(layer.output, wide, x, x, width);
        sync();
        return;
    }
    float* sum = blocks_->at(workspace_.sum.get(), hidden, block);
    linear(layer.attention_output, context, x, sum, width);
    sync();
    if (layer.residual_norm.gamma) {
        norm(layer.attention_norm, hidden, sum, sum, width);
        const Range lanes = share(width, kLaneTokens);  // the same lanes as in the LayerNorms
        for (int f = 0; f < hidden; ++f)
            for (size_t i = static_cast<size_t>(f) * width + lanes.begin;
                 i < static_cast<size_t>(f) * width + lanes.end; ++i)
                sum[i] += x[i];
        norm(layer.residual_norm, hidden, sum, x, width);
    } else {
        norm(layer.attention_norm, hidden, sum, x, width);
    }
    sync();
    intermediate(layer, x, wide, width);
    sync();
    linear(layer.output, wide, x, sum, width);
    sync();
    norm(layer.output_norm, hidden, sum, x, width);
    sync();
}

void Pass::encode() {
    const int layers = static_cast<int>(model_.layers.size());
    for_my_blocks([&](int block) {
        embed(block);
        sync();
        if (layers) project(model_.layers[0], block);
    });
    for (int l = 0; l < layers; ++l) {
        barrier();
        attend(l);
        barrier();
        if (is_last(l) && shared_.reads == Reads::kFirstTokens) keep_first_tokens();
        for_my_blocks([&](int block) {
            feed_forward(model_.layers[l], block);
            if (!is_last(l)) {
                project(model_.layers[l + 1], block);
            } else if (model_.norm_first) {
                float* x = blocks_->at(hidden_, model_.hidden_size, block);
                norm(model_.final_norm, model_.hidden_size, x, x, blocks_->width(block));
            }
        });
    }
    barrier();
}

bool Pass::is_last(int layer_index) const {
    return layer_index + 1 == static_cast<int>(model_.layers.size());
}

// From here on only the first token of each sequence is computed. These are few, so the threads
// divide the rows of each layer.
void Pass::keep_first_tokens() {
    float* hidden = workspace_.first.get();
    float* context = hidden + static_cast<size_t>(model_.hidden_size) * shared_.sequences.padded();
    gather_sequences(hidden_, false, hidden);
    gather_sequences(context_, false, context);
    hidden_ = hidden;
    context_ = context;
    blocks_ = &shared_.sequences;
    by_blocks_ = false;
    share_rows();
    barrier();
}

}  // namespace sparsebert
