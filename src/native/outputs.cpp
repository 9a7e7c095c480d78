// The outputs of a pass: hidden states, one pooled vector per sequence, or the results of a head.
#include <algorithm>

#include "pass.h"
#include "pooling.h"

namespace sparsebert {

void Pass::write_tokens(const float* block_data, int features, int block, int token_begin,
                        int token_end, float* out) const {
    const size_t width = blocks_->width(block);
    const int start = blocks_->start(block);
    constexpr int kTile = 16;  // one cache line of source and of destination
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

// Runs the head on its input x [hidden][width]; y [head's width][width] is the intermediate result.
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
        barrier();  // the next block's logits overwrite these
    }
}

}  // namespace sparsebert
