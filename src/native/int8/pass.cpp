#include "pass.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../shared_rows.h"

namespace sparsebert {
namespace {

// All tokens of a run use the weights that were read from L3, and the rows of a piece (3072 floats
// each) stay in L2. Without tiles, a piece is the whole run, 768 KiB.
constexpr Int8Runs kRuns = {64, 64};
// With tiles, reading weights from L3 for every 64 tokens would take longer than the products. A
// matrix of 1:2 weights, 1.3 MiB, stays in an L2 of 2 MiB beside the 384 KiB of each piece.
constexpr Int8Runs kRunsOnTiles = {256, 32};
// With fewer tokens per thread than this, reading all weights costs more than waiting at barriers.
constexpr int kTokensOfOwn = 32;

// Row stride in floats: like int8_stride, an odd number of cache lines.
int wide_stride(int features) { return (round_up(features, 16) / 16 | 1) * 16; }

Int8Rows take_rows(Arena& layout, int tokens, int features) {
    const size_t stride = int8_stride(features);
    return {layout.take<uint8_t>(tokens * stride), stride, layout.take<float>(tokens),
            layout.take<int32_t>(tokens)};
}

Int8Rows from_row(const Int8Rows& rows, int row) {
    return {rows.values + row * rows.stride, rows.stride, rows.scales + row,
            rows.zero_points + row};
}

// One thread's memory for a run of tokens.
struct RunMemory {
    RunMemory(const Int8Shared& shared, uint8_t* memory) {
        Arena layout(memory);
        const int widest = std::max(
            {shared.projection_stride, shared.intermediate_stride, shared.embedding_stride});
        wide = layout.take<float>(static_cast<size_t>(shared.runs.piece) * widest);
        bytes = take_rows(layout, shared.runs.run,
                          std::max({shared.hidden_stride, shared.model.intermediate_size,
                                    shared.embedding_stride}));
        used = layout.used();
    }
    float* wide;
    Int8Rows bytes;
    size_t used;
};

}  // namespace

Int8Shared::Int8Shared(const Int8Model& model_, const Int8Choice& choice_, ThreadPool& pool_,
                       Int8Workspace& workspace_, const Batch& batch_, Reads reads_,
                       const Positions& positions_, const Int8Distances& distances_)
    : model(model_),
      choice(choice_),
      pool(pool_),
      workspace(workspace_),
      positions(positions_),
      distances(distances_),
      batch(batch_),
      reads(model_.layers.empty() ? Reads::kEveryToken : reads_),
      attention(model_.layers.size()),
      hidden_stride(round_up(model_.hidden_size, 16)),
      projection_stride(wide_stride(3 * hidden_stride)),
      intermediate_stride(wide_stride(model_.gated && !model_.fused_gate
                                          ? 2 * round_up(model_.intermediate_size, 16)
                                          : model_.intermediate_rows())),
      embedding_stride(round_up(model_.embedding_size, 16)) {
    const int threads = pool.threads(), tokens = batch.tokens();
    by_rows = threads > 1 && tokens < threads * kTokensOfOwn;
    const bool tiles = choice.tiles && tokens / threads >= choice.fewest_tokens;
    runs = tiles ? kRunsOnTiles : kRuns;
    // A barrier after each piece would cost more than dividing rows saves.
    if (by_rows) runs = {kRuns.run, kRuns.run};
    runs.run = std::min(tokens, runs.run);
    runs.piece = std::min(tokens, runs.piece);
    // Cut into equal shares of the tokens, moved to the nearest sequence boundary if it is close.
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
    const int widest = std::max(model.hidden_size, model.head.width);  // of a head
    all.hidden = reinterpret_cast<float*>(workspace.hidden.reserve(floats * sizeof(float)));
    all.context = reinterpret_cast<float*>(
        workspace.context.reserve(sizeof(float) * tokens * round_up(widest, 16)));
    lay_out(workspace.quantized,
            [&](Arena& layout) { all.quantized = take_rows(layout, tokens, widest); });
    lay_out(workspace.first, [&](Arena& layout) {
        const int rows = reads == Reads::kFirstTokens ? batch.sequences : 0;
        first.hidden = layout.take<float>(static_cast<size_t>(rows) * hidden_stride);
        first.context = layout.take<float>(static_cast<size_t>(rows) * hidden_stride);
        first.quantized = take_rows(layout, rows, model.hidden_size);
    });
    heads.heads = model.heads;
    heads.head_size = model.hidden_size / model.heads;
    lay_out(workspace.heads, [&](Arena& layout) {
        heads.values = layout.take<uint8_t>(tokens * heads.row());
        heads.scales = layout.take<float>(static_cast<size_t>(tokens) * 3 * model.heads);
    });
    // The context's columns past the last are read by the quantiser but never written.
    if (hidden_stride != model.hidden_size) std::memset(all.context, 0, floats * sizeof(float));
    block_bytes = RunMemory(*this, nullptr).used;
    workspace.block.reserve(block_bytes * (by_rows ? 1 : threads));
    scratch_bytes = std::max(
        {int8_attention_scratch(longest(batch), heads.depth()),
         int8_linear_scratch(
             std::max({model.hidden_size, model.intermediate_size, model.embedding_size})),
         shared_scratch_bytes(model.widest_shared), kRowsTogether * hidden_stride * sizeof(float)});
    scratch_bytes = (scratch_bytes + 63) / 64 * 64;
    workspace.scratch.reserve(scratch_bytes * threads);
    // Reserved here rather than where it is used: no thread may run out of memory between barriers.
    lay_out(workspace.pooled, [&](Arena& layout) {
        const size_t rows = model.head.per_sequence() ? batch.sequences : 0;
        gathered = take_rows(layout, static_cast<int>(rows), model.hidden_size);
        gathered_rows = layout.take<float>(rows * hidden_stride);
        logits = layout.take<float>(
            model.head.decoder ? static_cast<size_t>(tokens) * kDecodedColumns * threads : 0);
    });
}

Int8Pass::Int8Pass(Int8Shared& shared, int thread)
    : PassThread(shared.pool, thread, !shared.by_rows),
      shared_(shared),
      model_(shared.model),
      kernels_(*shared.choice.kernels),
      batch_(shared.batch),
      rows_(shared.all),
      scratch_(shared.workspace.scratch.get() + shared.scratch_bytes * thread) {
    mine_ = shared.by_rows ? Range{0, batch_.tokens()}
                           : Range{shared.cuts[thread], shared.cuts[thread + 1]};
    const RunMemory memory(
        shared, shared.workspace.block.get() + (shared.by_rows ? 0 : shared.block_bytes * thread));
    wide_ = memory.wide;
    bytes_ = memory.bytes;
}

Range Int8Pass::share_of(Range run) const {
    const Range part = share(run.size());
    return {run.begin + part.begin, run.begin + part.end};
}

template <typename Step>
void Int8Pass::each_token(Range run, Step step) {
    const Range part = share_of(run);
    for (int token = part.begin; token < part.end; ++token) step(token, token - run.begin);
}

template <typename Step>
void Int8Pass::each_run(Step step) {
    cut(mine_, shared_.runs.run, step);
}

template <typename Step>
void Int8Pass::each_piece(Range run, Step step) {
    cut(run, shared_.runs.piece, step);
}

template <typename Step>
void Int8Pass::cut(Range whole, int most_tokens, Step step) {
    // Cut at multiples of eight tokens, which the kernels process at a time.
    constexpr int kUnit = 8;
    const int count = whole.size(), units = (count + kUnit - 1) / kUnit;
    const int most = (most_tokens + kUnit - 1) / kUnit;
    const int parts = (units + most - 1) / most;
    for (int part = 0; part < parts; ++part) {
        const Range range = part_of(units, part, parts);
        step(Range{whole.begin + range.begin * kUnit,
                   std::min(whole.end, whole.begin + range.end * kUnit)});
    }
}

void Int8Pass::linear(const Int8Weight& weight, const Int8Rows& x, int tokens,
                      const float* residual, float* y, size_t stride, bool in_cache) {
    const Range tiles = share(weight.tiles());
    run_linear(
        shared_.choice.with(tokens),
        {&weight, x, tokens, residual, y, stride, reinterpret_cast<int8_t*>(scratch_), 0, in_cache},
        tiles.begin, tiles.end);
}

Int8Rows Int8Pass::quantized_from(int row) const { return from_row(rows_.quantized, row); }

float* Int8Pass::hidden_row(int row) const {
    return rows_.hidden + static_cast<size_t>(row) * shared_.hidden_stride;
}

FloatRows Int8Pass::hidden_rows(Range rows) const {
    return rows_of(rows_.hidden, shared_.hidden_stride, rows);
}

bool Int8Pass::is_last(int layer) const {
    return layer + 1 == static_cast<int>(model_.layers.size());
}

void Int8Pass::embed(Range piece) {
    const int features = model_.embedding_size;
    const bool projects = model_.projection.values;
    const size_t stride = shared_.embedding_stride;
    each_token(piece, [&](int token, int i) {
        float* row = projects ? wide_ + i * stride : hidden_row(token);
        std::memset(row, 0, sizeof(float) * stride);
        const auto add = [&](const Int8Weight& table, int id) {
            if (table.values)
                kernels_.add_scaled(table.values + static_cast<size_t>(id) * features,
                                    table.scales[id], features, row);
        };
        add(model_.words, batch_.ids[token]);
        add(model_.type_table, batch_.types[token]);
        add(model_.task_table, 0);
        add(model_.position_table, batch_.position_ids[token]);
    });
    if (projects) {
        const Range part = share(piece.size());
        kernels_.norm(rows_of(wide_, stride, part), model_.embedding_norm, &bytes_, part.begin);
    } else {
        const Range part = share_of(piece);
        kernels_.norm(hidden_rows(part), model_.embedding_norm, &rows_.quantized, part.begin);
    }
    sync();
    if (!projects) return;
    linear(model_.projection, bytes_, piece.size(), nullptr, hidden_row(piece.begin),
           shared_.hidden_stride);
    sync();
    const Range part = share_of(piece);
    kernels_.activate(hidden_rows(part), model_.hidden_size, Activation::kNone, &rows_.quantized,
                      part.begin);
    sync();
}

// The residual stream stays unchanged: the LayerNorm is applied to a copy, which is quantised.
void Int8Pass::normalise(const Int8Norm& norm, Range run) {
    if (!norm.gamma) return;  // the first layer: the embeddings' LayerNorm has made its input
    float* copy = reinterpret_cast<float*>(scratch_);
    const size_t stride = shared_.hidden_stride;
    const Range part = share_of(run);
    for (int token = part.begin; token < part.end; token += kRowsTogether) {
        const int rows = std::min(kRowsTogether, part.end - token);
        std::memcpy(copy, hidden_row(token), sizeof(float) * stride * rows);
        kernels_.norm({copy, stride, rows}, norm, &rows_.quantized, token);
    }
    sync();
}

// Rotary embedding of a token's queries and keys; all heads use the same angles.
void Int8Pass::rotate(const Positions::Rotary& rotary, float* projections, size_t part,
                      int position) const {
    const int size = shared_.heads.head_size, half = size / 2;
    const float* cosines = rotary.cosines + position * rotary.stride;
    const float* sines = rotary.sines + position * rotary.stride;
    for (int p = 0; p < 2; ++p)
        for (int head = 0; head < model_.heads; ++head) {
            float* a = projections + p * part + static_cast<size_t>(head) * size;
            kernels_.rotate(a, a + half, cosines, sines, half);
        }
}

void Int8Pass::project(int index, Range run) {
    const Int8Layer& layer = model_.layers[index];
    if (model_.norm_first) normalise(layer.attention_norm, run);
    const Positions::Rotary rotary = shared_.positions.rotary(index);
    each_piece(run,
               [&](Range piece) { project_piece(layer, rotary, piece, piece.begin == run.begin); });
}

void Int8Pass::project_piece(const Int8Layer& layer, const Positions::Rotary& rotary, Range piece,
                             bool first) {
    // In a fused layer the three parts follow each other without padding to whole tiles.
    const bool fused = model_.fused_attention;
    const size_t part = fused ? model_.hidden_size : shared_.hidden_stride;
    const size_t stride = shared_.projection_stride;
    const int tokens = piece.size();
    const Int8Rows x = quantized_from(piece.begin);
    linear(layer.query, x, tokens, nullptr, wide_, stride, !first);
    if (!fused) {
        linear(layer.key, x, tokens, nullptr, wide_ + part, stride, !first);
        linear(layer.value, x, tokens, nullptr, wide_ + 2 * part, stride, !first);
    }
    sync();
    if (layer.query_norm.gamma) {
        const Range own = share(tokens);
        kernels_.norm(rows_of(wide_, stride, own), layer.query_norm, nullptr, 0);
        kernels_.norm(rows_of(wide_ + part, stride, own), layer.key_norm, nullptr, 0);
    }
    each_token(piece, [&](int token, int i) {
        float* projections = wide_ + i * stride;
        if (rotary.cosines) rotate(rotary, projections, part, batch_.position_ids[token]);
        kernels_.split_heads(projections, part, shared_.heads, token);
    });
    sync();
}

void Int8Pass::attend_head(int layer, int sequence, int head) {
    const int begin = batch_.offsets[sequence], tokens = batch_.offsets[sequence + 1] - begin;
    Int8Heads at = shared_.heads;
    at.values += begin * at.row();
    at.scales += static_cast<size_t>(begin) * 3 * at.heads;
    const bool first = is_last(layer) && shared_.reads == Reads::kFirstTokens;
    shared_.choice.with(tokens).attention(
        {at, head, tokens, batch_.keys_of(sequence), first ? 1 : tokens,
         rows_.context + static_cast<size_t>(begin) * shared_.hidden_stride,
         static_cast<size_t>(shared_.hidden_stride), scratch_,
         shared_.positions.bias(layer, head, tokens), shared_.positions.window(layer),
         shared_.distances.of(layer, head)});
}

void Int8Pass::attend(int layer) {
    if (shared_.aligned) {
        for (int s = shared_.sequences[thread_]; s < shared_.sequences[thread_ + 1]; ++s)
            for (int head = 0; head < model_.heads; ++head) attend_head(layer, s, head);
        return;
    }
    barrier();
    shared_.attention.take(layer, batch_.sequences, model_.heads,
                           [&](int sequence, int head) { attend_head(layer, sequence, head); });
    barrier();
}

// From here on only the first token of each sequence is computed. These are few, so the threads
// divide the rows of each layer, and share one thread's memory.
void Int8Pass::keep_first_tokens() {
    barrier();
    const size_t stride = shared_.hidden_stride;
    const Range part = share_of_all(batch_.sequences);
    for (int s = part.begin; s < part.end; ++s) {
        const size_t from = batch_.offsets[s] * stride, to = s * stride;
        std::memcpy(shared_.first.hidden + to, shared_.all.hidden + from, sizeof(float) * stride);
        std::memcpy(shared_.first.context + to, shared_.all.context + from, sizeof(float) * stride);
    }
    rows_ = shared_.first;
    mine_ = {0, batch_.sequences};
    share_rows();
    const RunMemory memory(shared_, shared_.workspace.block.get());
    wide_ = memory.wide;
    bytes_ = memory.bytes;
    barrier();
}

void Int8Pass::feed_forward(const Int8Layer& layer, Range run) {
    const int tokens = run.size();
    const size_t stride = shared_.hidden_stride, wide_stride = shared_.intermediate_stride;
    float* hidden = hidden_row(run.begin);
    float* context = rows_.context + run.begin * stride;
    const Range own = share(tokens), of_run = share_of(run);
    kernels_.activate(rows_of(context, stride, own), model_.hidden_size, Activation::kNone, &bytes_,
                      own.begin);
    sync();
    // The second sum needs the layer's input, so the first overwrites the context.
    const bool twice = layer.residual_norm.gamma;
    float* sum = twice ? context : hidden;
    linear(layer.attention_output, bytes_, tokens, hidden, sum, stride);
    sync();
    const auto norm = [&](const Int8Norm& norm) {
        kernels_.norm(hidden_rows(of_run), norm, &rows_.quantized, of_run.begin);
        sync();
    };
    if (twice) {
        kernels_.norm(rows_of(sum, stride, own), layer.attention_norm, nullptr, 0);
        for (int i = own.begin; i < own.end; ++i)
            for (int f = 0; f < model_.hidden_size; ++f)
                hidden[i * stride + f] += sum[i * stride + f];
    }
    if (model_.norm_first)
        normalise(layer.output_norm, run);
    else
        norm(twice ? layer.residual_norm : layer.attention_norm);
    // Two separate layers each begin at a tile boundary.
    const bool two = model_.gated && !model_.fused_gate;
    const size_t second = two ? round_up(model_.intermediate_size, 16) : model_.intermediate_size;
    each_piece(run, [&](Range piece) {
        const bool again = piece.begin != run.begin;
        const Int8Rows x = quantized_from(piece.begin);
        if (two) linear(layer.gate, x, piece.size(), nullptr, wide_, wide_stride, again);
        linear(layer.intermediate, x, piece.size(), nullptr, two ? wide_ + second : wide_,
               wide_stride, again);
        sync();
        const Range part = share(piece.size());
        const FloatRows rows = rows_of(wide_, wide_stride, part);
        const int to = piece.begin - run.begin + part.begin;
        if (model_.gated)
            kernels_.gate(rows, second, model_.intermediate_size, model_.activation, &bytes_, to);
        else
            kernels_.activate(rows, model_.intermediate_size, model_.activation, &bytes_, to);
        sync();
    });
    linear(layer.output, bytes_, tokens, hidden, hidden, stride);
    sync();
    if (!model_.norm_first)
        norm(layer.output_norm);
    else if (&layer == &model_.layers.back())
        norm(model_.final_norm);
}

void Int8Pass::encode() {
    const int layers = static_cast<int>(model_.layers.size());
    each_run([&](Range run) {
        each_piece(run, [&](Range piece) { embed(piece); });
        if (layers) project(0, run);
    });
    for (int l = 0; l < layers; ++l) {
        attend(l);
        if (is_last(l) && shared_.reads == Reads::kFirstTokens) keep_first_tokens();
        each_run([&](Range run) {
            feed_forward(model_.layers[l], run);
            if (!is_last(l)) project(l + 1, run);
        });
    }
    barrier();
}

}  // namespace sparsebert
