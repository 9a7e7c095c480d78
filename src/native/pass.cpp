#include "pass.h"

#include <cmath>
#include <cstring>

#include "half.h"
#include "pooling.h"
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

// Rows are handed out in units of 16: a cache line of biases, a whole number of register tiles.
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
      // Of few tokens the first ones alone would take as many lanes.
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
    if (!norm.gamma) return x;  // a first layer, whose input the embeddings' LayerNorm gave
    float* y = blocks_->at(workspace_.sum.get(), hidden, block);
    this->norm(norm, hidden, x, y, blocks_->width(block));
    sync();
    return y;
}

// Where a block's values stand that no other thread reads: a thread that works through whole
// blocks uses the same few pages for each, so that they stay in its L2.
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

// Takes (sequence, head) pairs until none is left. Each is gathered from the blocks it crosses
// into [head size][tokens] scratch, and its context scattered back.
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

// Rows are shared so that a thread that gates has made both factors itself.
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
        const Range lanes = share(width, kLaneTokens);  // which the LayerNorms work on, too
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

void Pass::write_tokens(const float* block_data, int features, int block, int token_begin,
                        int token_end, float* out) const {
    const size_t width = blocks_->width(block);
    const int start = blocks_->start(block);
    constexpr int kTile = 16;  // a cache line on either side of the transposition
    for (int f = 0; f < features; f += kTile) {
        const int stop = std::min(features, f + kTile);
        for (int token = token_begin; token < token_end; ++token) {
            float* row = out + static_cast<size_t>(token) * features;
            for (int i = f; i < stop; ++i) row[i] = block_data[i * width + (token - start)];
        }
    }
}

void Pass::write_hidden(float* out) {
    const Range part = share_of_all(shared_.batch.tokens());
    blocks_->each_piece(part.begin, part.end, [&](int block, int, int token, int count) {
        write_tokens(blocks_->at(hidden_, model_.hidden_size, block), model_.hidden_size, block,
                     token, token + count, out);
    });
}

void Pass::write_pooled(Pooling pooling, bool normalize, float* out) {
    const Batch& batch = shared_.batch;
    const int hidden = model_.hidden_size;
    for (int s = thread_; s < batch.sequences; s += threads_) {
        const int begin = shared_.reads == Reads::kFirstTokens ? s : batch.offsets[s];
        const int end = pooling == Pooling::kCls ? begin + 1 : batch.offsets[s + 1];
        float* vector = out + static_cast<size_t>(s) * hidden;
        bool fresh = true;
        blocks_->each_piece(begin, end, [&](int block, int lane, int, int count) {
            const size_t width = blocks_->width(block);
            const float* x = blocks_->at(hidden_, hidden, block) + lane;
            for (int f = 0; f < hidden; ++f, x += width) {
                if (pooling == Pooling::kMax) {
                    const float value = kernels_.maximum(x, count);
                    vector[f] = fresh ? value : larger(vector[f], value);
                } else {
                    vector[f] = (fresh ? 0.0f : vector[f]) + kernels_.sum(x, count);
                }
            }
            fresh = false;
        });
        scale_pooled(vector, hidden, end - begin, pooling, normalize);
    }
}

void Pass::write_head(float* out) {
    share_rows();
    if (model_.head.per_sequence())
        write_sequence_logits(out);
    else
        write_token_logits(out);
}

// The head from its input x [hidden][width] on; y [head's width][width] is in between.
void Pass::head_logits(const float* x, float* y, float* logits, int width) {
    if (model_.head_dense.weight.values) {
        linear(model_.head_dense, x, nullptr, y, width, model_.head.activation);
        barrier();
        x = y;
        if (model_.head_norm.gamma) {
            norm(model_.head_norm, model_.head.width, y, y, width);
            barrier();
        }
    }
    linear(model_.last, x, nullptr, logits, width);
    barrier();
}

bool Pass::is_last(int layer_index) const {
    return layer_index + 1 == static_cast<int>(model_.layers.size());
}

void Pass::gather_sequences(const float* tokens, bool mean, float* vectors) const {
    const Batch& batch = shared_.batch;
    const Blocks& columns = shared_.sequences;
    const int hidden = model_.hidden_size;
    for (int b = 0; b < columns.count(); ++b) {
        float* x = columns.at(vectors, hidden, b);
        const int width = columns.width(b);
        for (int lane = thread_; lane < width; lane += threads_) {
            const int s = std::min(columns.start(b) + lane, batch.sequences - 1);
            const int begin = batch.offsets[s];
            const int end = mean ? batch.offsets[s + 1] : begin + 1;
            shared_.blocks.each_piece(
                begin, end, [&](int block, int from_lane, int token, int count) {
                    const size_t from_width = shared_.blocks.width(block);
                    const float* from = shared_.blocks.at(tokens, hidden, block) + from_lane;
                    const float scale = 1.0f / static_cast<float>(end - begin);
                    for (int f = 0; f < hidden; ++f, from += from_width) {
                        float& to = x[static_cast<size_t>(f) * width + lane];
                        if (mean)
                            to = (token == begin ? 0.0f : to) + scale * kernels_.sum(from, count);
                        else
                            to = *from;
                    }
                });
        }
    }
}

// Each sequence's first token goes on alone. They are few: the threads share the rows of the
// layers from here on.
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

void Pass::write_sequence_logits(float* out) {
    const Blocks& columns = shared_.sequences;
    const int hidden = model_.hidden_size, labels = model_.head.outputs;
    float* gathered = workspace_.gathered.get();
    float* transformed = gathered + static_cast<size_t>(hidden) * columns.padded();
    if (shared_.reads == Reads::kFirstTokens) {
        gathered = hidden_;
    } else {
        gather_sequences(hidden_, model_.head.input == HeadInput::kMean, gathered);
        barrier();
    }
    for (int b = 0; b < columns.count(); ++b) {
        const int width = columns.width(b);
        float* logits = columns.at(workspace_.logits.get(), labels, b);
        head_logits(columns.at(gathered, hidden, b), columns.at(transformed, model_.head.width, b),
                    logits, width);
        if (thread_ != 0) continue;
        for (int lane = 0; lane < width && columns.start(b) + lane < shared_.batch.sequences;
             ++lane)
            for (int label = 0; label < labels; ++label)
                out[static_cast<size_t>(columns.start(b) + lane) * labels + label] =
                    logits[static_cast<size_t>(label) * width + lane];
    }
}

void Pass::write_token_logits(float* out) {
    const int hidden = model_.hidden_size, labels = model_.head.outputs;
    float* logits = workspace_.logits.get();
    for (int b = 0; b < blocks_->count(); ++b) {
        const int width = blocks_->width(b), start = blocks_->start(b);
        head_logits(blocks_->at(hidden_, hidden, b),
                    blocks_->at(workspace_.sum.get(), model_.head.width, b), logits, width);
        const int count = std::min(width, shared_.batch.tokens() - start);
        const Range tokens = share(count);
        write_tokens(logits, labels, b, start + tokens.begin, start + tokens.end, out);
        barrier();  // the next block's logits take the same place
    }
}

}  // namespace sparsebert
