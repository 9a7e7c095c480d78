// Attention of one head on vectors: register blocks of tiles of keys, or of value columns, by a few
// queries.
#pragma once

#include "attention_head.inl"
#include "expansion.inl"

// R tiles of keys by T queries.
template <int R, int T>
[[gnu::noinline]] void score_tile(const HeadTiles& head, int query, int key) {
    const int depth = head.call.at.depth();
    Sums sums[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) sums[r][t] = load_sums(head.offsets + key + r * 16);
    sum_dense<R, T>(sums, head.keys + static_cast<size_t>(key) * depth,
                    static_cast<size_t>(depth) * 16, head.part(0, query), head.call.at.row(),
                    depth / 4);
    // Local copies, which stores cannot alias.
    const float *key_scales = head.key_scales + key, *value_logs = head.value_logs + key;
    float scales[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) scales[t] = head.scale(0, query + t);
    float* row = head.scores + key;
    const size_t stride = head.score_stride;
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t, row += stride) {
        const Vec scale = Vec::broadcast(scales[t]);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            Vec lanes[kTileVectors];
            to_floats(sums[r][t], lanes);
#pragma GCC unroll 4
            for (int v = 0; v < kTileVectors; ++v) {
                const int i = r * 16 + v * Vec::kWidth;
                const Vec factor = mul(scale, Vec::load(key_scales + i));
                fma(lanes[v], factor, Vec::load(value_logs + i)).store(row + i);
            }
        }
    }
}

// Adds the scores of distances to the content scores of T queries (rows of `scores`) by 16 keys.
// Queries are multiplied by the keys of distances as by those of tokens; each of the 16 keys is
// multiplied by a query of a distance of its own.
template <int T>
[[gnu::noinline]] void add_distances(const HeadTiles& head, float* scores, int query, int key) {
    const Int8HeadDistances& of = head.call.distances;
    const int fours = head.call.at.depth() / 4;
    const int8_t* keys = head.keys + static_cast<size_t>(key) * fours * 4;
    const int first = key - query;  // from the first query to the first key
    Sums to_keys[T], to_queries[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
        to_keys[t] = scaled_sums(of.key_sums + first - t, kInputOffset - 128);
    for (int four = 0; four < fours; ++four) {
        const ptrdiff_t at = static_cast<ptrdiff_t>(four * of.stride) + first;
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t)
            dot(to_keys[t], load_four(head.part(0, query + t) + four * 4),
                load_weights(of.keys + (at - t) * 4));
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) to_queries[t] = load_sums(head.offsets + key);
    for (int four = 0; four < fours; ++four) {
        const Weights weights = load_weights(keys + four * 64);
        const ptrdiff_t at = static_cast<ptrdiff_t>(four * of.stride) + first;
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) dot_rows(to_queries[t], of.queries + (at - t) * 4, weights);
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
        Vec by_query[kTileVectors], by_key[kTileVectors];
        to_floats(to_keys[t], by_query);
        to_floats(to_queries[t], by_key);
        const Vec scale = Vec::broadcast(head.scale(0, query + t));
        float* row = scores + t * head.score_stride + key;
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) {
            const int i = v * Vec::kWidth, at = first - t + i;
            Vec score = Vec::load(row + i);
            score = fma(by_query[v], mul(scale, Vec::load(of.key_scales + at)), score);
            const Vec factor =
                mul(Vec::load(head.key_scales + key + i), Vec::load(of.query_scales + at));
            fma(by_key[v], factor, score).store(row + i);
        }
    }
}

// R tiles of value columns by T queries, over keys [begin, end).
template <int R, int T>
[[gnu::noinline]] void context_tile(const HeadTiles& head, int query, int column, int begin,
                                    int end, const float* factors) {
    const int8_t* values = head.values + static_cast<size_t>(column) * head.padded + begin * 16;
    const size_t values_tile = static_cast<size_t>(head.padded) * 16;
    const int fours = (end - begin) / 4;
    Sums sums[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
        const Sums first = missing_sums(values + r * values_tile, fours);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) sums[r][t] = first;
    }
    sum_dense<R, T>(sums, values, values_tile, head.probabilities + begin, head.probability_stride,
                    fours);
    const int size = head.call.at.head_size;
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
        float* out = head.call.context + (query + t) * head.call.stride + head.call.head * size;
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            Vec lanes[kTileVectors];
            to_floats(sums[r][t], lanes);
            store_context(lanes, factors[t], column + r * 16, size, out);
        }
    }
}

void attention(const Int8Attention& call) {
    const HeadTiles head(call);
    const int key_tiles = head.padded / 16, column_tiles = call.at.depth() / 16;
    each_run<kAttentionTokens>(call.queries, [&](auto length, int query, int runs) {
        constexpr int T = length();
        for (; runs > 0; --runs, query += T) {
            // The keys that at least one query of the block attends to, in whole tiles.
            const int first = std::max(0, query - call.window) / 16;
            const int last = std::min(key_tiles, (query + T - 1 + call.window) / 16 + 1);
            each_run<kAttentionTiles>(last - first, [&](auto tiles, int tile, int count) {
                for (tile += first; count > 0; --count, tile += tiles())
                    score_tile<tiles(), T>(head, query, tile * 16);
            });
            for (int key = 0; call.distances.keys && key < head.padded; key += 16)
                add_distances<T>(head, head.scores, query, key);
            // Each step takes all rows before the next step, so that the rows' horizontal sums and
            // divisions overlap.
            float highest[T], factors[T];
            for (int t = 0; t < T; ++t)
                highest[t] =
                    highest_score(head.scores + t * head.score_stride, first * 16, last * 16,
                                  call.bias ? call.bias - (query + t) : nullptr);
            for (int t = 0; t < T; ++t)
                factors[t] = softmax(head, head.scores + t * head.score_stride,
                                     head.probabilities + t * head.probability_stride, first * 16,
                                     last * 16, highest[t]);
            each_run<kAttentionTiles>(column_tiles, [&](auto tiles, int tile, int count) {
                for (; count > 0; --count, tile += tiles())
                    context_tile<tiles(), T>(head, query, tile * 16, first * 16, last * 16,
                                             factors);
            });
        }
    });
}
