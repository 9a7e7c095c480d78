#include "pass.h"

#include <cmath>
#include <cstring>

#include "half.h"
#include "pooling.h"

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

int longest(const Batch& batch) {
    int tokens = 0;
    for (int s = 0; s < batch.sequences; ++s)
        tokens = std::max(tokens, batch.offsets[s + 1] - batch.offsets[s]);
    return tokens;
}

// Rows are handed out in units of 8: a cache line of biases, a whole number of register tiles.
constexpr int kRowUnit = 8;

}  // namespace

Shared::Shared(const Model& model_, const Kernels& kernels_, ThreadPool& pool_,
               Workspace& workspace_, const Batch& batch_)
    : model(model_),
      kernels(kernels_),
      pool(pool_),
      workspace(workspace_),
      batch(batch_),
      blocks(batch_.tokens(), pool_.threads()),
      sequences(batch_.sequences),
      by_blocks(blocks.count() % pool_.threads() == 0 || blocks.count() >= 4 * pool_.threads()),
      attention_next(model_.layers.size()) {
    const size_t padded = blocks.padded();
    const size_t hidden = model.hidden_size;
    for (Floats* buffer : {&workspace.hidden, &workspace.sum, &workspace.query, &workspace.key,
                           &workspace.value, &workspace.context})
        buffer->reserve(hidden * padded);
    const size_t private_tokens = static_cast<size_t>(kBlockTokens) * pool.threads();
    workspace.intermediate.reserve(model.intermediate_size * (by_blocks ? private_tokens : padded));
    if (model.head != Head::kEncoder) {
        workspace.gathered.reserve(2 * hidden * sequences.padded());
        const size_t columns = model.head == Head::kSequence ? sequences.padded() : kBlockTokens;
        workspace.logits.reserve(model.classifier.weight.rows * columns);
    }
    const int tokens = longest(batch);
    const size_t head_size = model.hidden_size / model.heads;
    scratch_floats =
        std::max(4 * head_size * round_up(tokens, kLaneTokens) + attention_scratch(tokens),
                 hidden * kLaneTokens);
    scratch_floats = (scratch_floats + 15) / 16 * 16;
    workspace.scratch.reserve(scratch_floats * pool.threads());
}

Pass::Pass(Shared& shared, int thread)
    : shared_(shared),
      model_(shared.model),
      kernels_(shared.kernels),
      workspace_(shared.workspace),
      blocks_(shared.blocks),
      thread_(thread),
      threads_(shared.pool.threads()),
      part_(shared.by_blocks ? 0 : thread),
      parts_(shared.by_blocks ? 1 : threads_),
      scratch_(shared.workspace.scratch.get() + shared.scratch_floats * thread) {}

Pass::Range Pass::share(int items, int unit) const {
    const long units = (items + unit - 1) / unit;
    const auto cut = [&](int part) {
        return std::min(items, static_cast<int>(units * part / parts_) * unit);
    };
    return {cut(part_), cut(part_ + 1)};
}

void Pass::sync() {
    if (!shared_.by_blocks) barrier();
}

template <typename Step>
void Pass::for_my_blocks(Step step) {
    const int count = blocks_.count();
    const int begin = shared_.by_blocks ? count * thread_ / threads_ : 0;
    const int end = shared_.by_blocks ? count * (thread_ + 1) / threads_ : count;
    for (int block = begin; block < end; ++block) step(block);
}

void Pass::linear(const Dense& layer, const float* x, const float* residual, float* y, int width,
                  Activation activation) {
    const Range rows = share(layer.weight.rows, kRowUnit);
    kernels_.linear({&layer.weight, layer.bias, x, residual, y, width, activation}, rows.begin,
                    rows.end);
}

void Pass::norm(const Norm& norm, const float* x, float* y, int width) {
    const Range lanes = share(width, kLaneTokens);
    kernels_.layer_norm(x, y, norm.gamma, norm.beta, model_.hidden_size, width, lanes.begin,
                        lanes.end, model_.epsilon);
}

// Where a block's values stand that no other thread reads: a thread that works through whole
// blocks uses the same few pages for each, so that they stay in its L2.
float* Pass::private_block(Floats& buffer, int features, int block) {
    if (shared_.by_blocks)
        return buffer.get() + static_cast<size_t>(features) * kBlockTokens * thread_;
    return blocks_.at(buffer.get(), features, block);
}

void Pass::embed(int block) {
    const Batch& batch = shared_.batch;
    const int hidden = model_.hidden_size;
    const int width = blocks_.width(block), start = blocks_.start(block);
    float* x = blocks_.at(workspace_.hidden.get(), hidden, block);
    const Range lanes = share(width, kLaneTokens);
    for (int lane = lanes.begin; lane < lanes.end; lane += kLaneTokens) {
        std::memset(scratch_, 0, sizeof(float) * hidden * kLaneTokens);
        for (int i = 0; i < kLaneTokens; ++i) {
            const int token = start + lane + i;
            if (token >= batch.tokens()) break;
            const int32_t* after =
                std::upper_bound(batch.offsets, batch.offsets + batch.sequences + 1, token);
            float* row = scratch_ + static_cast<size_t>(i) * hidden;
            add_row(model_.words, batch.ids[token], row);
            add_row(model_.type_table, batch.types[token], row);
            add_row(model_.position_table, token - after[-1], row);
        }
        for (int f = 0; f < hidden; ++f)
            for (int i = 0; i < kLaneTokens; ++i)
                x[static_cast<size_t>(f) * width + lane + i] =
                    scratch_[static_cast<size_t>(i) * hidden + f];
    }
    norm(model_.embedding_norm, x, x, width);
}

void Pass::project(const Layer& layer, int block) {
    const int hidden = model_.hidden_size, width = blocks_.width(block);
    const float* x = blocks_.at(workspace_.hidden.get(), hidden, block);
    linear(layer.query, x, nullptr, blocks_.at(workspace_.query.get(), hidden, block), width);
    linear(layer.key, x, nullptr, blocks_.at(workspace_.key.get(), hidden, block), width);
    linear(layer.value, x, nullptr, blocks_.at(workspace_.value.get(), hidden, block), width);
}

// Takes (sequence, head) pairs until none is left. Each is gathered from the blocks it crosses
// into [head size][tokens] scratch, and its context scattered back.
void Pass::attend(int layer_index) {
    const Batch& batch = shared_.batch;
    const int hidden = model_.hidden_size, heads = model_.heads, size = hidden / heads;
    for (;;) {
        const int item =
            shared_.attention_next[layer_index].fetch_add(1, std::memory_order_relaxed);
        if (item >= batch.sequences * heads) return;
        const int begin = batch.offsets[item / heads], end = batch.offsets[item / heads + 1];
        const int first_row = item % heads * size;
        const int tokens = end - begin, stride = round_up(tokens, kLaneTokens);
        float* parts[4];
        for (int p = 0; p < 4; ++p) parts[p] = scratch_ + static_cast<size_t>(p) * size * stride;
        const float* sources[3] = {workspace_.query.get(), workspace_.key.get(),
                                   workspace_.value.get()};
        for (int p = 0; p < 3; ++p) {
            blocks_.each_piece(begin, end, [&](int block, int lane, int token, int count) {
                const int width = blocks_.width(block);
                const float* from = blocks_.at(sources[p], hidden, block) +
                                    static_cast<size_t>(first_row) * width + lane;
                for (int d = 0; d < size; ++d)
                    std::memcpy(parts[p] + static_cast<size_t>(d) * stride + (token - begin),
                                from + static_cast<size_t>(d) * width, sizeof(float) * count);
            });
        }
        for (int d = 0; d < size; ++d)  // queries past the end: any finite number
            for (int i = tokens; i < stride; ++i)
                parts[0][static_cast<size_t>(d) * stride + i] = 0.0f;
        kernels_.attention({parts[0], parts[1], parts[2], parts[3],
                            scratch_ + static_cast<size_t>(4) * size * stride, tokens, stride, size,
                            1.0f / std::sqrt(static_cast<float>(size))});
        blocks_.each_piece(begin, end, [&](int block, int lane, int token, int count) {
            const int width = blocks_.width(block);
            float* to = blocks_.at(workspace_.context.get(), hidden, block) +
                        static_cast<size_t>(first_row) * width + lane;
            for (int d = 0; d < size; ++d)
                std::memcpy(to + static_cast<size_t>(d) * width,
                            parts[3] + static_cast<size_t>(d) * stride + (token - begin),
                            sizeof(float) * count);
        });
    }
}

void Pass::feed_forward(const Layer& layer, int block) {
    const int hidden = model_.hidden_size, width = blocks_.width(block);
    float* x = blocks_.at(workspace_.hidden.get(), hidden, block);
    float* sum = blocks_.at(workspace_.sum.get(), hidden, block);
    float* intermediate = private_block(workspace_.intermediate, model_.intermediate_size, block);
    linear(layer.attention_output, blocks_.at(workspace_.context.get(), hidden, block), x, sum,
           width);
    sync();
    norm(layer.attention_norm, sum, x, width);
    sync();
    linear(layer.intermediate, x, nullptr, intermediate, width, model_.activation);
    sync();
    linear(layer.output, intermediate, x, sum, width);
    sync();
    norm(layer.output_norm, sum, x, width);
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
        for_my_blocks([&](int block) {
            feed_forward(model_.layers[l], block);
            if (l + 1 < layers) project(model_.layers[l + 1], block);
        });
    }
    barrier();
}

void Pass::write_tokens(const float* block_data, int features, int block, int token_begin,
                        int token_end, float* out) const {
    const size_t width = blocks_.width(block);
    const int start = blocks_.start(block);
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
    const int tokens = shared_.batch.tokens();
    const auto cut = [&](int part) {
        return static_cast<int>(static_cast<long>(tokens) * part / threads_);
    };
    blocks_.each_piece(cut(thread_), cut(thread_ + 1), [&](int block, int, int token, int count) {
        write_tokens(blocks_.at(workspace_.hidden.get(), model_.hidden_size, block),
                     model_.hidden_size, block, token, token + count, out);
    });
}

void Pass::write_pooled(Pooling pooling, bool normalize, float* out) {
    const Batch& batch = shared_.batch;
    const int hidden = model_.hidden_size;
    for (int s = thread_; s < batch.sequences; s += threads_) {
        const int begin = batch.offsets[s];
        const int end = pooling == Pooling::kCls ? begin + 1 : batch.offsets[s + 1];
        float* vector = out + static_cast<size_t>(s) * hidden;
        bool fresh = true;
        blocks_.each_piece(begin, end, [&](int block, int lane, int, int count) {
            const size_t width = blocks_.width(block);
            const float* x = blocks_.at(workspace_.hidden.get(), hidden, block) + lane;
            for (int f = 0; f < hidden; ++f, x += width) {
                if (pooling == Pooling::kMax) {
                    const float value = kernels_.maximum(x, count);
                    vector[f] = fresh ? value : std::max(vector[f], value);
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
    // Heads share rows whatever the encoder did: few blocks, or one wide layer.
    part_ = thread_;
    parts_ = threads_;
    if (model_.head == Head::kSequence)
        write_first_token_logits(out);
    else
        write_token_logits(out);
}

void Pass::write_first_token_logits(float* out) {
    const Batch& batch = shared_.batch;
    const Blocks& columns = shared_.sequences;
    const int hidden = model_.hidden_size, labels = model_.classifier.weight.rows;
    float* first = workspace_.gathered.get();
    float* pooled = first + static_cast<size_t>(hidden) * columns.padded();
    for (int b = 0; b < columns.count(); ++b) {
        float* x = columns.at(first, hidden, b);
        const int width = columns.width(b);
        for (int lane = thread_; lane < width; lane += threads_) {
            const int s = columns.start(b) + lane;
            const int token = s < batch.sequences ? batch.offsets[s] : 0;
            const int block = blocks_.find(token);
            const size_t from_width = blocks_.width(block);
            const float* from =
                blocks_.at(workspace_.hidden.get(), hidden, block) + (token - blocks_.start(block));
            for (int f = 0; f < hidden; ++f)
                x[static_cast<size_t>(f) * width + lane] = from[f * from_width];
        }
    }
    barrier();
    for (int b = 0; b < columns.count(); ++b) {
        const int width = columns.width(b);
        const float* x = columns.at(first, hidden, b);
        if (model_.pooler.weight.values) {
            float* y = columns.at(pooled, hidden, b);
            linear(model_.pooler, x, nullptr, y, width, Activation::kTanh);
            barrier();
            x = y;
        }
        float* logits = columns.at(workspace_.logits.get(), labels, b);
        linear(model_.classifier, x, nullptr, logits, width);
        barrier();
        if (thread_ == 0)
            for (int lane = 0; lane < width && columns.start(b) + lane < batch.sequences; ++lane)
                for (int label = 0; label < labels; ++label)
                    out[static_cast<size_t>(columns.start(b) + lane) * labels + label] =
                        logits[static_cast<size_t>(label) * width + lane];
    }
}

void Pass::write_token_logits(float* out) {
    const int hidden = model_.hidden_size, labels = model_.classifier.weight.rows;
    float* logits = workspace_.logits.get();
    for (int b = 0; b < blocks_.count(); ++b) {
        const int width = blocks_.width(b), start = blocks_.start(b);
        const float* x = blocks_.at(workspace_.hidden.get(), hidden, b);
        if (model_.head == Head::kMaskedLm) {
            float* y = blocks_.at(workspace_.sum.get(), hidden, b);
            linear(model_.transform, x, nullptr, y, width, model_.activation);
            barrier();
            norm(model_.transform_norm, y, y, width);
            barrier();
            x = y;
        }
        linear(model_.classifier, x, nullptr, logits, width);
        barrier();
        const int count = std::min(width, shared_.batch.tokens() - start);
        const Range tokens = share(count);
        write_tokens(logits, labels, b, start + tokens.begin, start + tokens.end, out);
        barrier();  // the next block's logits take the same place
    }
}

}  // namespace sparsebert
