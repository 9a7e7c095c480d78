// Attention's two products on tile registers, 16 queries at a time: a tile of sums holds the scores
// of 16 keys, then the context of 16 columns. Keys and values are laid out as for the other sets,
// and four inputs by 16 outputs to a row make tiles of weights; queries and probabilities are tiles
// of inputs. A step of the second product takes 64 keys; one of the first takes the largest
// multiple of 16 values, up to 64, that divides a head's depth.
//
// A product takes 52 cycles and a store before its sums can be read, so they are read later: the
// next queries' scores are computed before the softmax of the current ones, and a context is
// converted to floats after the next queries' softmax.
#pragma once

#include "attention.inl"

// Calls visit(Tile<0>(), 0), ..., visit(Tile<N - 1>(), N - 1).
template <int... Number, typename Visit>
[[gnu::always_inline]] inline void each_tile(std::integer_sequence<int, Number...>,
                                             const Visit& visit) {
    (visit(Tile<Number>(), Number), ...);
}
template <int N, typename Visit>
[[gnu::always_inline]] inline void each_tile(const Visit& visit) {
    each_tile(std::make_integer_sequence<int, N>(), visit);
}

// Queries [query, query + rows) of a head: as many as the tiles are configured for.
struct QueryBlock {
    const HeadTiles& head;
    int query, rows;
    int step;         // inputs of the first product's tiles
    int first, last;  // tiles of keys that any of the queries attend to
    // Two blocks are in flight at a time, each with its own buffers.
    float* scores;
    int32_t* sums;  // [rows][depth]: of the context
    float* factors;

    QueryBlock(const HeadTiles& head, int query, int rows, int step, int which,
               float (&factors)[2][kTileQueries])
        : head(head),
          query(query),
          rows(rows),
          step(step),
          first(std::max(0, query - head.call.window) / 16),
          last(std::min(head.padded / 16, (query + rows - 1 + head.call.window) / 16 + 1)),
          scores(head.scores + which * kTileQueries * head.score_stride),
          sums(head.sums + which * kTileQueries * head.call.at.depth()),
          factors(factors[which]) {}

    // Sums are stored where their floats will be.
    void multiply_keys() const {
        each_run<4>(last - first, [&](auto tiles, int tile, int count) {
            for (tile += first; count > 0; --count, tile += tiles()) score_tiles<tiles()>(tile);
        });
    }

    template <int N>
    void score_tiles(int tile) const {
        const int depth = head.call.at.depth();
        each_tile<N>([](auto sums, int) { sums.zero(); });
        for (int d = 0; d < depth; d += step) {
            Tile<4>::load(head.part(0, query) + d, head.call.at.row());
            const int8_t* keys = head.keys + static_cast<size_t>(tile) * 16 * depth + d * 16;
            each_tile<N>([&](auto sums, int n) {
                Tile<6>::load(keys + static_cast<size_t>(n) * depth * 16, 64);
                multiply(sums, Tile<4>(), Tile<6>());
            });
        }
        each_tile<N>([&](auto sums, int n) {
            sums.store(scores + (tile + n) * 16, head.score_stride * sizeof(float));
        });
    }

    void softmax_rows() const {
        float highest[kTileQueries];
        for (int t = 0; t < rows; ++t)
            highest[t] = convert_scores(t, scores + t * head.score_stride);
        if (head.call.distances.keys) add_scores_of_distances(highest);
        for (int t = 0; t < rows; ++t) {
            float* row = scores + t * head.score_stride;
            uint8_t* out = head.probabilities + t * head.probability_stride;
            factors[t] = softmax(head, row, out, first * 16, last * 16, highest[t]);
            // A last step of fewer keys reads these zeros past them.
            std::memset(out + last * 16, 0, 48);
        }
    }

    void add_scores_of_distances(float* highest) const {
        each_run<kAttentionTokens>(rows, [&](auto length, int t, int runs) {
            for (; runs > 0; --runs, t += length())
                for (int key = 0; key < head.padded; key += 16)
                    add_distances<length()>(head, scores + t * head.score_stride, query + t, key);
        });
        for (int t = 0; t < rows; ++t)
            highest[t] = highest_score(scores + t * head.score_stride, 0, head.padded, nullptr);
    }

    // Converts the sums of query t to scores; returns the highest.
    float convert_scores(int t, float* row) const {
        const Vec scale = Vec::broadcast(head.scale(0, query + t));
        const float* bias = head.call.bias ? head.call.bias - (query + t) : nullptr;
        // Local copies, which stores cannot alias.
        const int32_t* offsets = head.offsets;
        const float *key_scales = head.key_scales, *value_logs = head.value_logs;
        Vec highest = Vec::broadcast(-std::numeric_limits<float>::infinity());
        for (int key = first * 16, end = last * 16; key < end; key += 16) {
            Vec lanes[kTileVectors];
            to_floats(add_sums(load_sums(reinterpret_cast<const int32_t*>(row + key)),
                               load_sums(offsets + key)),
                      lanes);
            for (int v = 0, i = key; v < kTileVectors; ++v, i += Vec::kWidth) {
                Vec score =
                    fma(lanes[v], mul(scale, Vec::load(key_scales + i)), Vec::load(value_logs + i));
                if (bias) score = add(score, Vec::load(bias + i));
                score.store(row + i);
                highest = max(highest, score);
            }
        }
        return largest(highest);
    }

    void multiply_values() const {
        each_run<4>(head.call.at.depth() / 16, [&](auto tiles, int tile, int count) {
            for (; count > 0; --count, tile += tiles()) context_tiles<tiles()>(tile * 16);
        });
    }

    template <int N>
    void context_tiles(int column) const {
        each_tile<N>([](auto sums, int) { sums.zero(); });
        const size_t padded = head.padded;
        for (int key = first * 16; key < last * 16; key += 64) {
            Tile<5>::load(head.probabilities + key, head.probability_stride);
            const int8_t* values = head.values + column * padded + key * 16;
            each_tile<N>([&](auto sums, int n) {
                Tile<7>::load(values + n * padded * 16, 64);
                multiply(sums, Tile<5>(), Tile<7>());
            });
        }
        each_tile<N>([&](auto tile, int n) {
            tile.store(sums + column + n * 16, head.call.at.depth() * sizeof(int32_t));
        });
    }

    void finish_context() const {
        const int depth = head.call.at.depth(), size = head.call.at.head_size;
        for (int t = 0; t < rows; ++t) {
            float* out = head.call.context + (query + t) * head.call.stride + head.call.head * size;
            for (int column = 0; column < depth; column += 16) {
                Vec lanes[kTileVectors];
                to_floats(load_sums(sums + t * depth + column), lanes);
                store_context(lanes, factors[t], column, size, out);
            }
        }
    }
};

// Queries [begin, end), `rows` at a time; their number is a multiple of `rows`.
inline void attend_queries(const HeadTiles& head, int begin, int end, int rows) {
    const int depth = head.call.at.depth();
    int step = 64;
    while (depth % step) step -= 16;
    const TilesInUse tiles(rows, step);
    float factors[2][kTileQueries];
    const auto block = [&](int query) {
        return QueryBlock(head, query, rows, step, (query - begin) / rows % 2, factors);
    };
    block(begin).multiply_keys();
    for (int query = begin; query < end; query += rows) {
        if (query + rows < end) block(query + rows).multiply_keys();
        block(query).softmax_rows();
        if (query > begin) block(query - rows).finish_context();
        block(query).multiply_values();
    }
    block(end - rows).finish_context();
}

void attention_on_tiles(const Int8Attention& call) {
    // Smaller calls are not worth the latency of tiles.
    if (static_cast<long>(call.queries) * call.at.depth() < kFewestForTiles) return attention(call);
    const HeadTiles head(call);
    const int rest = call.queries % 16, whole = call.queries - rest;
    if (whole) attend_queries(head, 0, whole, 16);
    if (rest) attend_queries(head, whole, call.queries, rest);
}
