#include "distances.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "../distances.h"
#include "../shared_rows.h"

namespace sparsebert {

struct Int8Distances::Rows {
    int first, count;  // rows of the embeddings, of distances that occur
    Int8Rows bytes;
};

// What one thread needs for projecting: the layer's outputs [rows][3][hidden], then the same
// quantised.
struct Int8Distances::Memory {
    Memory(const Int8Model& model, int rows) : part(round_up(model.hidden_size, kTileRows)) {
        heads.heads = model.heads;
        heads.head_size = model.hidden_size / model.heads;
        const size_t floats = rows * 3 * part;
        const size_t layer = std::max(int8_linear_scratch(model.hidden_size),
                                      shared_scratch_bytes(model.widest_shared));
        lay_out(bytes, [&](Arena& layout) {
            projections = layout.take<float>(floats);
            heads.values = layout.take<uint8_t>(rows * heads.row());
            heads.scales = layout.take<float>(static_cast<size_t>(rows) * 3 * heads.heads);
            scratch = layout.take<int8_t>(layer);
        });
        std::fill_n(projections, floats, 0.0f);  // values are never written, the others not always
    }
    size_t part;  // floats of a row's queries, keys or values
    Bytes bytes;
    float* projections;
    Int8Heads heads{};
    int8_t* scratch;
};

// The arrays of `Int8HeadDistances`, from the farthest distance on, and their place in memory.
struct Int8Distances::Table {
    Table(uint8_t* memory, size_t stride, size_t depth) {
        Arena layout(memory);
        keys = layout.take<int8_t>(stride * depth);
        queries = layout.take<uint8_t>(stride * depth);
        key_sums = layout.take<int32_t>(stride);
        key_scales = layout.take<float>(stride);
        query_scales = layout.take<float>(stride);
        bytes = layout.used();
    }
    int8_t* keys;
    uint8_t* queries;
    int32_t* key_sums;
    float* key_scales;
    float* query_scales;
    size_t bytes;
};

Int8Distances::Table Int8Distances::table(int layer, int head) const {
    const int depth = round_up(model_.hidden_size / model_.heads, kTileRows);
    return {layers_[layer].get() + table_bytes_ * head, stride(capacity_),
            static_cast<size_t>(depth)};
}

void Int8Distances::reserve(int tokens, ThreadPool& pool) {
    const Disentangled& of = model_.disentangled;
    if (!of.span || tokens <= capacity_) return;
    const int capacity = grown_capacity(capacity_, tokens, model_.longest());
    capacity_ = 0;  // in case an allocation fails: the layers' contents are lost by then
    const int hidden = model_.hidden_size;
    const int depth = round_up(hidden / model_.heads, kTileRows);
    table_bytes_ = Table(nullptr, stride(capacity), depth).bytes;
    layers_.resize(model_.layers.size());
    for (Bytes& layer : layers_) layer.reserve(table_bytes_ * model_.heads);

    const int first = of.row(-capacity), count = of.row(capacity) + 1 - first;
    const size_t bytes = int8_stride(hidden);
    Bytes values;
    std::vector<float> scales(count), row(round_up(hidden, kTileRows));
    std::vector<int32_t> zero_points(count);
    const Rows rows{
        first, count, {values.reserve(count * bytes), bytes, scales.data(), zero_points.data()}};
    for (int r = 0; r < count; ++r) {
        const size_t at = static_cast<size_t>(first + r) * hidden;
        std::copy_n(of.embeddings.data() + at, hidden, row.data());
        choice_.kernels->activate({row.data(), row.size(), 1}, hidden, Activation::kNone,
                                  &rows.bytes, r);
    }
    std::vector<Memory> memories;
    for (size_t t = 0; t < layers_.size() && t < static_cast<size_t>(pool.threads()); ++t)
        memories.emplace_back(model_, count);
    capacity_ = capacity;
    pool.run([&](int thread) {
        for (size_t l = thread; l < layers_.size(); l += pool.threads()) {
            project(model_.layers[l], rows, memories[thread]);
            fill(static_cast<int>(l), first, memories[thread].heads);
        }
    });
}

// The layer's queries and keys of the rows, which take the place of tokens.
void Int8Distances::project(const Int8Layer& layer, const Rows& rows, const Memory& memory) const {
    float* y = memory.projections;
    const size_t part = memory.part, stride = 3 * part;
    const auto run = [&](const Int8Weight& weight, float* to) {
        run_linear(choice_.with(rows.count),
                   {&weight, rows.bytes, rows.count, nullptr, to, stride, memory.scratch, 0}, 0,
                   weight.tiles());
    };
    if (model_.disentangled.queries) run(layer.query, y);
    if (model_.disentangled.keys) run(layer.key, y + part);
    for (int r = 0; r < rows.count; ++r)
        choice_.kernels->split_heads(y + r * stride, part, memory.heads, r);
}

// Copies each distance's row, four values of a head at a time.
void Int8Distances::fill(int layer, int first_row, const Int8Heads& from) const {
    const int depth = from.depth();
    const float factor = int8_score_factor(from.head_size, model_.disentangled.terms);
    for (int head = 0; head < from.heads; ++head) {
        const Table to = table(layer, head);
        std::memset(to.keys, 0, to.bytes);
        for (int d = 0; d < 2 * capacity_; ++d) {
            // Lanes are keys: distances are key minus query.
            const int row = model_.disentangled.row(capacity_ - d) - first_row;
            const uint8_t* query = from.values + row * from.row() + head * depth;
            const uint8_t* key = query + from.heads * depth;
            int32_t sum = 0;
            for (int i = 0; i < depth; ++i) sum += static_cast<int8_t>(key[i]);
            for (int i = 0; i < depth; i += 4) {
                const size_t at = (i / 4 * stride(capacity_) + d) * 4;
                std::memcpy(to.queries + at, query + i, 4);
                std::memcpy(to.keys + at, key + i, 4);
            }
            const float* scales = from.scales + row * 3 * from.heads + head;
            to.key_sums[d] = sum;
            to.query_scales[d] = scales[0];
            to.key_scales[d] = scales[from.heads] * factor;
        }
    }
}

Int8HeadDistances Int8Distances::of(int layer, int head) const {
    if (layers_.empty()) return {};
    const Table from = table(layer, head);
    const size_t middle = capacity_;
    return {from.keys + 4 * middle,   from.queries + 4 * middle,  from.key_sums + middle,
            from.key_scales + middle, from.query_scales + middle, stride(capacity_),
            model_.disentangled.terms};
}

}  // namespace sparsebert
