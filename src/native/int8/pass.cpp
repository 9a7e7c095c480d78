#include "pass.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../pooling.h"

namespace sparsebert {
namespace {

// Tokens of a run: their rows of the widest layer (3072 floats) fill an L2 cache of 1 MiB, and
// weights that come from L3 are used by all of them.
constexpr int kRunTokens = 64;
// With fewer tokens than this for each thread, reading the weights costs more than waiting.
constexpr int kTokensOfOwn = 32;

Int8Rows take_rows(Pieces& layout, int tokens, int features) {
    const size_t stride = int8_stride(features);
    return {layout.take<uint8_t>(tokens * stride), stride, layout.take<float>(tokens),
            layout.take<int32_t>(tokens)};
}

Int8Rows from_row(const Int8Rows& rows, int row) {
    return {rows.values + row * rows.stride, rows.stride, rows.scales + row, rows.zeros + row};
}

int longest(const Batch& batch) {
    int tokens = 0;
    for (int s = 0; s < batch.sequences; ++s)
        tokens = std::max(tokens, batch.offsets[s + 1] - batch.offsets[s]);
    return tokens;
}

// A thread's own memory for a run of tokens.
struct RunMemory {
    RunMemory(const Int8Shared& shared, uint8_t* memory) {
        Pieces layout(memory);
        const int widest = std::max(3 * shared.hidden_stride, shared.intermediate_stride);
        wide = layout.take<float>(static_cast<size_t>(shared.block_tokens) * widest);
        bytes = take_rows(layout, shared.block_tokens,
                          std::max(shared.hidden_stride, shared.intermediate_stride));
        used = layout.used();
    }
    float* wide;
    Int8Rows bytes;
    size_t used;
};

}  // namespace

Int8Shared::Int8Shared(const Int8Model& model_, const Int8Kernels& kernels_, ThreadPool& pool_,
                       Int8Workspace& workspace_, const Batch& batch_)
    : model(model_),
      kernels(kernels_),
      pool(pool_),
      workspace(workspace_),
      batch(batch_),
      attention_next(model_.layers.size()),
      hidden_stride(round_up(model_.hidden_size, 16)),
      intermediate_stride(round_up(model_.intermediate_size, 16)) {
    const int threads = pool.threads(), tokens = batch.tokens();
    by_rows = threads > 1 && tokens < threads * kTokensOfOwn;
    block_tokens = std::min(tokens, kRunTokens);
    // Cuts at equal shares of the tokens, moved to the nearest sequence where that is near enough.
    aligned = !by_rows;
    const int tolerance = std::max(1, tokens / threads / 16);
    for (int t = 0; t <= threads; ++t) {
        const int share = static_cast<int>(static_cast<long>(tokens) * t / threads);
        const int32_t* end = batch.offsets + batch.sequences + 1;
        const int32_t* near = std::lower_bound(batch.offsets, end, share);
        if (near != batch.offsets && share - near[-1] < near[0] - share) --near;
        cuts.push_back(share);
        sequences.push_back(static_cast<int>(near - batch.offsets));
        aligned = aligned && std::abs(*near - share) <= tolerance;
    }
    if (aligned)
        for (int t = 0; t <= threads; ++t) cuts[t] = batch.offsets[sequences[t]];

    const size_t floats = static_cast<size_t>(tokens) * hidden_stride;
    hidden = reinterpret_cast<float*>(workspace.hidden.reserve(floats * sizeof(float)));
    context = reinterpret_cast<float*>(workspace.context.reserve(floats * sizeof(float)));
    const auto lay_rows = [&](uint8_t* memory) {
        Pieces layout(memory);
        quantized = take_rows(layout, tokens, model.hidden_size);
        return layout.used();
    };
    lay_rows(workspace.quantized.reserve(lay_rows(nullptr)));
    heads.heads = model.heads;
    heads.head_size = model.hidden_size / model.heads;
    const auto lay_heads = [&](uint8_t* memory) {
        Pieces layout(memory);
        heads.values = layout.take<uint8_t>(tokens * heads.row());
        heads.scales = layout.take<float>(static_cast<size_t>(tokens) * 3 * model.heads);
        return layout.used();
    };
    lay_heads(workspace.heads.reserve(lay_heads(nullptr)));
    // The context's columns past the last are read by the quantiser and written by nobody.
    if (hidden_stride != model.hidden_size) std::memset(context, 0, floats * sizeof(float));
    block_bytes = RunMemory(*this, nullptr).used;
    workspace.block.reserve(block_bytes * (by_rows ? 1 : threads));
    scratch_bytes =
        std::max(int8_attention_scratch(longest(batch), heads.depth()),
                 int8_linear_scratch(std::max(model.hidden_size, model.intermediate_size)));
    scratch_bytes = (scratch_bytes + 63) / 64 * 64;
    workspace.scratch.reserve(scratch_bytes * threads);
}

Int8Pass::Int8Pass(Int8Shared& shared, int thread)
    : shared_(shared),
      model_(shared.model),
      kernels_(shared.kernels),
      batch_(shared.batch),
      thread_(thread),
      threads_(shared.pool.threads()),
      part_(shared.by_rows ? thread : 0),
      parts_(shared.by_rows ? threads_ : 1),
      scratch_(shared.workspace.scratch.get() + shared.scratch_bytes * thread) {
    tokens_ = shared.by_rows ? Range{0, batch_.tokens()}
                             : Range{shared.cuts[thread], shared.cuts[thread + 1]};
    const RunMemory memory(
        shared, shared.workspace.block.get() + (shared.by_rows ? 0 : shared.block_bytes * thread));
    wide_ = memory.wide;
    bytes_ = memory.bytes;
}

Int8Pass::Range Int8Pass::part_of(int items, int part, int parts) {
    return {static_cast<int>(static_cast<long>(items) * part / parts),
            static_cast<int>(static_cast<long>(items) * (part + 1) / parts)};
}

template <typename Step>
void Int8Pass::each_token(Range run, Step step) {
    const Range mine = part_of(run.end - run.begin, part_, parts_);
    for (int i = mine.begin; i < mine.end; ++i) step(run.begin + i, i);
}

template <typename Step>
void Int8Pass::each_run(Step step) {
    // Cut at multiples of eight tokens, which the kernels take at a time.
    constexpr int kUnit = 8;
    const int count = tokens_.end - tokens_.begin, units = (count + kUnit - 1) / kUnit;
    const int most = (shared_.block_tokens + kUnit - 1) / kUnit;
    const int runs = (units + most - 1) / most;
    for (int run = 0; run < runs; ++run) {
        const Range cut = part_of(units, run, runs);
        step(Range{tokens_.begin + cut.begin * kUnit,
                   std::min(tokens_.end, tokens_.begin + cut.end * kUnit)});
    }
}

void Int8Pass::sync() {
    if (shared_.by_rows) barrier();
}

void Int8Pass::linear(const Int8Weight& weight, const Int8Rows& x, int tokens,
                      const float* residual, float* y, size_t stride) {
    const Range tiles = part_of(weight.tiles(), part_, parts_);
    kernels_.linear(
        {&weight, x, tokens, residual, y, stride, reinterpret_cast<int8_t*>(scratch_), 0},
        tiles.begin, tiles.end);
}

Int8Rows Int8Pass::rows_from(int token) const { return from_row(shared_.quantized, token); }

float* Int8Pass::hidden_row(int token) const {
    return shared_.hidden + static_cast<size_t>(token) * shared_.hidden_stride;
}

void Int8Pass::embed(Range run) {
    const int hidden = model_.hidden_size;
    each_token(run, [&](int token, int) {
        const int32_t* after =
            std::upper_bound(batch_.offsets, batch_.offsets + batch_.sequences + 1, token);
        float* row = hidden_row(token);
        std::memset(row, 0, sizeof(float) * shared_.hidden_stride);
        const auto add = [&](const Int8Weight& table, int id) {
            kernels_.add_scaled(table.values + static_cast<size_t>(id) * hidden, table.scales[id],
                                hidden, row);
        };
        add(model_.words, batch_.ids[token]);
        add(model_.type_table, batch_.types[token]);
        add(model_.position_table, token - after[-1]);
        kernels_.norm(row, model_.embedding_norm, &shared_.quantized, token);
    });
    sync();
}

void Int8Pass::project(const Int8Layer& layer, Range run) {
    const size_t part = shared_.hidden_stride, stride = 3 * part;
    const int tokens = run.end - run.begin;
    const Int8Rows x = rows_from(run.begin);
    linear(layer.query, x, tokens, nullptr, wide_, stride);
    linear(layer.key, x, tokens, nullptr, wide_ + part, stride);
    linear(layer.value, x, tokens, nullptr, wide_ + 2 * part, stride);
    sync();
    each_token(run, [&](int token, int i) {
        kernels_.split_heads(wide_ + i * stride, part, shared_.heads, token);
    });
    sync();
}

void Int8Pass::attend_head(int sequence, int head) {
    const int begin = batch_.offsets[sequence];
    Int8Heads at = shared_.heads;
    at.values += begin * at.row();
    at.scales += static_cast<size_t>(begin) * 3 * at.heads;
    kernels_.attention({at, head, batch_.offsets[sequence + 1] - begin,
                        shared_.context + static_cast<size_t>(begin) * shared_.hidden_stride,
                        static_cast<size_t>(shared_.hidden_stride), scratch_});
}

void Int8Pass::attend(int layer) {
    if (shared_.aligned) {
        for (int s = shared_.sequences[thread_]; s < shared_.sequences[thread_ + 1]; ++s)
            for (int head = 0; head < model_.heads; ++head) attend_head(s, head);
        return;
    }
    barrier();
    for (;;) {
        const int item = shared_.attention_next[layer].fetch_add(1, std::memory_order_relaxed);
        if (item >= batch_.sequences * model_.heads) break;
        attend_head(item / model_.heads, item % model_.heads);
    }
    barrier();
}

void Int8Pass::feed_forward(const Int8Layer& layer, Range run) {
    const int tokens = run.end - run.begin;
    const size_t stride = shared_.hidden_stride, wide_stride = shared_.intermediate_stride;
    float* hidden = hidden_row(run.begin);
    each_token(run, [&](int token, int i) {
        kernels_.activate(shared_.context + token * stride, model_.hidden_size, Activation::kNone,
                          &bytes_, i);
    });
    sync();
    linear(layer.attention_output, bytes_, tokens, hidden, hidden, stride);
    sync();
    each_token(run, [&](int token, int) {
        kernels_.norm(hidden_row(token), layer.attention_norm, &shared_.quantized, token);
    });
    sync();
    linear(layer.intermediate, rows_from(run.begin), tokens, nullptr, wide_, wide_stride);
    sync();
    each_token(run, [&](int, int i) {
        kernels_.activate(wide_ + i * wide_stride, model_.intermediate_size, model_.activation,
                          &bytes_, i);
    });
    sync();
    linear(layer.output, bytes_, tokens, hidden, hidden, stride);
    sync();
    each_token(run, [&](int token, int) {
        kernels_.norm(hidden_row(token), layer.output_norm, &shared_.quantized, token);
    });
    sync();
}

void Int8Pass::encode() {
    const int layers = static_cast<int>(model_.layers.size());
    each_run([&](Range run) {
        embed(run);
        if (layers) project(model_.layers[0], run);
    });
    for (int l = 0; l < layers; ++l) {
        attend(l);
        each_run([&](Range run) {
            feed_forward(model_.layers[l], run);
            if (l + 1 < layers) project(model_.layers[l + 1], run);
        });
    }
    barrier();
}

void Int8Pass::write_hidden(float* out) {
    const int hidden = model_.hidden_size;
    const Range mine = part_of(batch_.tokens(), thread_, threads_);
    for (int token = mine.begin; token < mine.end; ++token)
        std::memcpy(out + static_cast<size_t>(token) * hidden, hidden_row(token),
                    sizeof(float) * hidden);
}

void Int8Pass::write_pooled(Pooling pooling, bool normalize, float* out) {
    const int hidden = model_.hidden_size;
    for (int s = thread_; s < batch_.sequences; s += threads_) {
        const int begin = batch_.offsets[s];
        const int end = pooling == Pooling::kCls ? begin + 1 : batch_.offsets[s + 1];
        float* vector = out + static_cast<size_t>(s) * hidden;
        std::memcpy(vector, hidden_row(begin), sizeof(float) * hidden);
        for (int token = begin + 1; token < end; ++token) {
            const float* row = hidden_row(token);
            if (pooling == Pooling::kMax)
                for (int f = 0; f < hidden; ++f) vector[f] = std::max(vector[f], row[f]);
            else
                for (int f = 0; f < hidden; ++f) vector[f] += row[f];
        }
        scale_pooled(vector, hidden, end - begin, pooling, normalize);
    }
}

void Int8Pass::write_head(float* out) {
    // Heads share rows whatever the encoder did: few tokens, or one wide layer.
    part_ = thread_;
    parts_ = threads_;
    if (model_.head == Head::kSequence)
        write_first_token_logits(out);
    else if (model_.head == Head::kMaskedLm)
        write_decoded(out);
    else
        write_token_logits(out);
}

void Int8Pass::write_first_token_logits(float* out) {
    const int hidden = model_.hidden_size, count = batch_.sequences;
    const int stride = shared_.hidden_stride;
    Int8Rows first;
    float* pooled;
    const auto lay = [&](uint8_t* memory) {
        Pieces layout(memory);
        first = take_rows(layout, count, hidden);
        pooled = layout.take<float>(static_cast<size_t>(count) * stride);
        return layout.used();
    };
    if (thread_ == 0) shared_.workspace.pooled.reserve(lay(nullptr));
    barrier();
    lay(shared_.workspace.pooled.get());
    const Range mine = part_of(count, thread_, threads_);
    const bool pools = model_.pooler.values;
    for (int s = mine.begin; s < mine.end; ++s) {
        float* row = hidden_row(batch_.offsets[s]);
        if (pools)
            kernels_.activate(row, hidden, Activation::kNone, &first, s);
        else
            std::memcpy(pooled + static_cast<size_t>(s) * stride, row, sizeof(float) * hidden);
    }
    barrier();
    if (pools) {
        linear(model_.pooler, first, count, nullptr, pooled, stride);
        barrier();
        for (int s = mine.begin; s < mine.end; ++s)
            kernels_.activate(pooled + static_cast<size_t>(s) * stride, hidden, Activation::kTanh,
                              nullptr, 0);
    }
    for (int s = mine.begin; s < mine.end; ++s)
        for (int label = 0; label < model_.outputs; ++label)
            out[static_cast<size_t>(s) * model_.outputs + label] =
                model_.classifier_bias[label] +
                kernels_.dot(pooled + static_cast<size_t>(s) * stride,
                             model_.classifier + static_cast<size_t>(label) * hidden, hidden);
}

void Int8Pass::write_token_logits(float* out) {
    const int hidden = model_.hidden_size;
    const Range mine = part_of(batch_.tokens(), thread_, threads_);
    for (int token = mine.begin; token < mine.end; ++token)
        for (int label = 0; label < model_.outputs; ++label)
            out[static_cast<size_t>(token) * model_.outputs + label] =
                model_.classifier_bias[label] +
                kernels_.dot(hidden_row(token),
                             model_.classifier + static_cast<size_t>(label) * hidden, hidden);
}

void Int8Pass::write_decoded(float* out) {
    const int tokens = batch_.tokens();
    const size_t stride = shared_.hidden_stride;
    linear(model_.transform, shared_.quantized, tokens, nullptr, shared_.context, stride);
    barrier();
    const Range mine = part_of(tokens, thread_, threads_);
    for (int token = mine.begin; token < mine.end; ++token) {
        float* row = shared_.context + token * stride;
        kernels_.activate(row, model_.hidden_size, model_.activation, nullptr, 0);
        kernels_.norm(row, model_.transform_norm, &shared_.quantized, token);
    }
    // A few tiles of the vocabulary at a time, because the kernels write whole tiles and `out` has
    // no room for the last one's filling.
    constexpr int kTilesAtOnce = 16, kColumns = kTilesAtOnce * kTileRows;
    const size_t floats = static_cast<size_t>(tokens) * kColumns;
    if (thread_ == 0) shared_.workspace.pooled.reserve(floats * threads_ * sizeof(float));
    barrier();
    float* logits = reinterpret_cast<float*>(shared_.workspace.pooled.get()) + floats * thread_;
    const Range tiles = part_of(model_.decoder.tiles(), thread_, threads_);
    for (int tile = tiles.begin; tile < tiles.end; tile += kTilesAtOnce) {
        const int end = std::min(tiles.end, tile + kTilesAtOnce), first = tile * kTileRows;
        kernels_.linear({&model_.decoder, shared_.quantized, tokens, nullptr, logits, kColumns,
                         reinterpret_cast<int8_t*>(scratch_), first},
                        tile, end);
        const int count = std::min(end * kTileRows, model_.outputs) - first;
        for (int token = 0; token < tokens; ++token)
            std::memcpy(out + static_cast<size_t>(token) * model_.outputs + first,
                        logits + static_cast<size_t>(token) * kColumns, sizeof(float) * count);
    }
}

}  // namespace sparsebert
