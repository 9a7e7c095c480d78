// The outputs of a pass: hidden states, one pooled vector per sequence, or the results of a head.
#include <algorithm>
#include <cstring>

#include "../pooling.h"
#include "pass.h"

namespace sparsebert {

void Int8Pass::write_hidden(float* out) {
    const int hidden = model_.hidden_size;
    const Range part = share_of_all(batch_.tokens());
    for (int token = part.begin; token < part.end; ++token)
        std::memcpy(out + static_cast<size_t>(token) * hidden, hidden_row(token),
                    sizeof(float) * hidden);
}

int Int8Pass::first_row(int sequence) const {
    return shared_.reads == Reads::kFirstTokens ? sequence : batch_.offsets[sequence];
}

void Int8Pass::write_pooled(Pooling pooling, bool normalize, float* out) {
    const int hidden = model_.hidden_size;
    for (int s = thread_; s < batch_.sequences; s += threads_) {
        const int begin = first_row(s);
        const int end = pooling == Pooling::kCls ? begin + 1 : batch_.offsets[s + 1];
        float* vector = out + static_cast<size_t>(s) * hidden;
        std::memcpy(vector, hidden_row(begin), sizeof(float) * hidden);
        for (int token = begin + 1; token < end; ++token) {
            const float* row = hidden_row(token);
            if (pooling == Pooling::kMax)
                for (int f = 0; f < hidden; ++f) vector[f] = larger(vector[f], row[f]);
            else
                for (int f = 0; f < hidden; ++f) vector[f] += row[f];
        }
        scale_pooled(vector, hidden, end - begin, pooling, normalize);
    }
}

void Int8Pass::write_head(float* out) {
    share_rows();
    if (model_.head.per_sequence())
        write_sequence_logits(out);
    else if (model_.head.decoder)
        write_decoded(out);
    else
        write_token_logits(out);
}

void Int8Pass::gather_sequence(int sequence, float* row) const {
    const int begin = first_row(sequence), end = batch_.offsets[sequence + 1];
    std::memcpy(row, hidden_row(begin), sizeof(float) * shared_.hidden_stride);
    if (model_.head.input != HeadInput::kMean) return;
    for (int token = begin + 1; token < end; ++token)
        for (int f = 0; f < model_.hidden_size; ++f) row[f] += hidden_row(token)[f];
    for (int f = 0; f < model_.hidden_size; ++f) row[f] /= static_cast<float>(end - begin);
}

// Activation and LayerNorm after the head's first linear layer.
void Int8Pass::finish_dense(const FloatRows& rows, const Int8Rows* out, int at) const {
    const bool norms = model_.head_norm.gamma;
    kernels_.activate(rows, model_.head.width, model_.head.activation, norms ? nullptr : out, at);
    if (norms) kernels_.norm(rows, model_.head_norm, out, at);
}

void Int8Pass::write_answer(const float* row, float* out) const {
    const int width = model_.head.width;
    for (int label = 0; label < model_.head.outputs; ++label)
        out[label] = model_.last_bias[label] +
                     kernels_.dot(row, model_.last + static_cast<size_t>(label) * width, width);
}

void Int8Pass::write_sequence_logits(float* out) {
    const int hidden = model_.hidden_size, count = batch_.sequences;
    const size_t stride = shared_.hidden_stride;
    const Int8Rows& quantized = shared_.gathered;
    float* const rows = shared_.gathered_rows;
    const Range part = share_of_all(count);
    const bool dense = model_.head_dense.values;
    for (int s = part.begin; s < part.end; ++s)
        gather_sequence(s, rows + static_cast<size_t>(s) * stride);
    if (dense)
        kernels_.activate(rows_of(rows, stride, part), hidden, Activation::kNone, &quantized,
                          part.begin);
    barrier();
    if (dense) {
        linear(model_.head_dense, quantized, count, nullptr, rows, stride);
        barrier();
    }
    if (dense) finish_dense(rows_of(rows, stride, part), nullptr, 0);
    for (int s = part.begin; s < part.end; ++s)
        write_answer(rows + static_cast<size_t>(s) * stride,
                     out + static_cast<size_t>(s) * model_.head.outputs);
}

// Applies the head's first layer to every token: into rows_.context and, quantised, into `out`.
void Int8Pass::transform_tokens(const Int8Rows* out) {
    const int tokens = batch_.tokens();
    const size_t stride = round_up(model_.head.width, 16);
    linear(model_.head_dense, rows_.quantized, tokens, nullptr, rows_.context, stride);
    barrier();
    const Range part = share_of_all(tokens);
    finish_dense(rows_of(rows_.context, stride, part), out, part.begin);
}

void Int8Pass::write_token_logits(float* out) {
    const bool dense = model_.head_dense.values;
    const size_t stride = round_up(model_.head.width, 16);
    if (dense) transform_tokens(nullptr);
    const Range part = share_of_all(batch_.tokens());
    for (int token = part.begin; token < part.end; ++token)
        write_answer(dense ? rows_.context + token * stride : hidden_row(token),
                     out + static_cast<size_t>(token) * model_.head.outputs);
}

void Int8Pass::write_decoded(float* out) {
    const int tokens = batch_.tokens(), outputs = model_.head.outputs;
    transform_tokens(&rows_.quantized);
    barrier();  // each thread has quantised some of the tokens, and will read all of them
    float* logits = shared_.logits + static_cast<size_t>(tokens) * kDecodedColumns * thread_;
    const Range tiles = share_of_all(model_.decoder.tiles());
    for (int tile = tiles.begin; tile < tiles.end; tile += kDecodedTiles) {
        const int end = std::min(tiles.end, tile + kDecodedTiles), first = tile * kTileRows;
        shared_.choice.with(tokens).linear(
            {&model_.decoder, rows_.quantized, tokens, nullptr, logits, kDecodedColumns,
             reinterpret_cast<int8_t*>(scratch_), first},
            tile, end);
        const int count = std::min(end * kTileRows, outputs) - first;
        for (int token = 0; token < tokens; ++token)
            std::memcpy(out + static_cast<size_t>(token) * outputs + first,
                        logits + static_cast<size_t>(token) * kDecodedColumns,
                        sizeof(float) * count);
    }
}

}  // namespace sparsebert
