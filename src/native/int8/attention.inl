// Scaled dot-product attention of one head over one sequence, in int8:
//   S[i][j] = sq[i] sk[j] / sqrt(d) sum_d Q[i][d] K[j][d]
//   p[i][j] = exp(S[i][j] + ln sv[j] - max_j),  P = round(255 p)
//   O[i][d] = sum_j P[i][j] V[j][d] / (255 sum_j p[i][j] / sv[j])
// A value's scale is folded into the probabilities, and everything is kept in powers of two.
#pragma once

#include "tiles.inl"

// 2^x for x <= 0, to a relative 8e-6: far below what eight bits of probability can tell.
inline Vec quick_exp2(Vec x) {
    x = max(x, Vec::broadcast(-126.0f));
    const Vec n = round(x), r = sub(x, n);
    Vec p = Vec::broadcast(9.670788948e-3f);
    p = fma(p, r, Vec::broadcast(5.587568397e-2f));
    p = fma(p, r, Vec::broadcast(2.402221131e-1f));
    p = fma(p, r, Vec::broadcast(6.931272467e-1f));
    p = fma(p, r, Vec::broadcast(1.0f));
    return mul(p, pow2(n));
}

// A head's keys and values laid out as weights, and what a query row needs beside them.
struct HeadTiles {
    HeadTiles(const Int8Attention& a) : call(a), padded(round_up(a.tokens, 16)) {
        const int depth = a.at.depth();
        uint8_t* next = a.scratch;
        const auto take = [&](size_t bytes) {
            uint8_t* taken = next;
            next += bytes;
            return taken;
        };
        keys = reinterpret_cast<int8_t*>(take(static_cast<size_t>(padded) * depth));
        values = reinterpret_cast<int8_t*>(take(static_cast<size_t>(padded) * depth));
        offsets = reinterpret_cast<int32_t*>(take(padded * 4));
        key_scales = reinterpret_cast<float*>(take(padded * 4));
        value_logs = reinterpret_cast<float*>(take(padded * 4));
        value_inverses = reinterpret_cast<float*>(take(padded * 4));
        scores =
            reinterpret_cast<float*>(take(static_cast<size_t>(padded) * kAttentionQueries * 4));
        probabilities = take(static_cast<size_t>(padded) * kAttentionQueries);
        fill();
    }

    const uint8_t* part(int which, int token) const {  // 0 queries, 1 keys, 2 values
        const Int8Heads& at = call.at;
        return at.values + token * at.row() + (which * at.heads + call.head) * at.depth();
    }
    float scale(int which, int token) const {
        return call.at.scales[(token * 3 + which) * call.at.heads + call.head];
    }

    void fill() {
        const int depth = call.at.depth();
        // log2 e moves the exponential to powers of two.
        const float factor = 1.44269504f / std::sqrt(static_cast<float>(call.at.head_size));
        for (int j = 0; j < padded; ++j) {
            const bool real = j < call.tokens;
            const float value = real ? std::max(scale(2, j), 1e-12f) : 1.0f;
            key_scales[j] = real ? scale(1, j) * factor : 0.0f;
            // No weight on what is not there.
            value_logs[j] = real ? std::log2(value) : -std::numeric_limits<float>::infinity();
            value_inverses[j] = real ? 1.0f / value : 0.0f;
        }
        const size_t row = call.at.row();
        for (int j = 0; j < padded; j += 16)
            transpose_keys(part(1, j), row, std::min(16, call.tokens - j), depth,
                           keys + static_cast<size_t>(j) * depth, offsets + j);
        for (int j = 0; j < padded; j += 4)
            interleave_values(part(2, j), row, std::min(4, call.tokens - j), depth,
                              values + static_cast<size_t>(j) * 16,
                              static_cast<size_t>(padded) * 16);
    }

    const Int8Attention& call;
    int padded;
    int8_t* keys;      // [padded / 16][depth / 4][16 keys][4]
    int8_t* values;    // [depth / 16][padded / 4][16 columns][4 tokens]
    int32_t* offsets;  // -128 x sum of each key: queries are stored plus 128
    float* key_scales;
    float* value_logs;
    float* value_inverses;
    float* scores;           // [kAttentionQueries][padded]
    uint8_t* probabilities;  // [kAttentionQueries][padded]
};

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
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
        const Vec scale = Vec::broadcast(head.scale(0, query + t));
        float* row = head.scores + static_cast<size_t>(t) * head.padded + key;
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            Vec lanes[kTileVectors];
            to_floats(sums[r][t], lanes);
#pragma GCC unroll 4
            for (int v = 0; v < kTileVectors; ++v) {
                const int i = r * 16 + v * Vec::kWidth;
                const Vec factor = mul(scale, Vec::load(head.key_scales + key + i));
                fma(lanes[v], factor, Vec::load(head.value_logs + key + i)).store(row + i);
            }
        }
    }
}

// Scores of query t of a tile, for keys [begin, end), to probabilities; returns the factor of its
// context. `bias` is that of key 0.
inline float soften(const HeadTiles& head, int t, int begin, int end, const float* bias) {
    float* row = head.scores + static_cast<size_t>(t) * head.padded;
    uint8_t* out = head.probabilities + static_cast<size_t>(t) * head.padded;
    if (bias)
        for (int j = begin; j < end; j += Vec::kWidth)
            add(Vec::load(row + j), Vec::load(bias + j)).store(row + j);
    Vec highest = Vec::load(row + begin);
    for (int j = begin + Vec::kWidth; j < end; j += Vec::kWidth)
        highest = max(highest, Vec::load(row + j));
    highest = Vec::broadcast(largest(highest));
    Vec total = Vec::broadcast(0.0f);
    const Vec most = Vec::broadcast(255.0f);
    for (int j = begin; j < end; j += 16) {
        Vec lanes[kTileVectors];
        for (int v = 0, i = j; v < kTileVectors; ++v, i += Vec::kWidth) {
            const Vec power = quick_exp2(sub(Vec::load(row + i), highest));
            total = fma(power, Vec::load(head.value_inverses + i), total);
            lanes[v] = mul(power, most);
        }
        store_bytes(lanes, out + j);
    }
    return 1.0f / (255.0f * lane_sum(total));
}

// R tiles of value columns by T queries, over keys [begin, end).
template <int R, int T>
[[gnu::noinline]] void context_tile(const HeadTiles& head, int query, int column, int begin,
                                    int end, const float* factors) {
    Sums sums[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) sums[r][t] = zero_sums();
    sum_dense<R, T>(sums, head.values + static_cast<size_t>(column) * head.padded + begin * 16,
                    static_cast<size_t>(head.padded) * 16, head.probabilities + begin, head.padded,
                    (end - begin) / 4);
    const int size = head.call.at.head_size;
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) {
        float* out = head.call.context + (query + t) * head.call.stride + head.call.head * size;
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            Vec lanes[kTileVectors];
            to_floats(sums[r][t], lanes);
            const int from = column + r * 16;
            float tail[16];  // the next head's columns are not ours to write
            float* to = from + 16 <= size ? out + from : tail;
#pragma GCC unroll 4
            for (int v = 0; v < kTileVectors; ++v)
                mul(lanes[v], Vec::broadcast(factors[t])).store(to + v * Vec::kWidth);
            if (to == tail) std::memcpy(out + from, tail, sizeof(float) * (size - from));
        }
    }
}

void attention(const Int8Attention& call) {
    const HeadTiles head(call);
    const int key_tiles = head.padded / 16, column_tiles = call.at.depth() / 16;
    each_run<kAttentionTokens>(call.tokens, [&](auto length, int query, int runs) {
        constexpr int T = length();
        for (; runs > 0; --runs, query += T) {
            // The keys that some query of the tile sees, in whole tiles.
            const int first = std::max(0, query - call.window) / 16;
            const int last = std::min(key_tiles, (query + T - 1 + call.window) / 16 + 1);
            each_run<kAttentionTiles>(last - first, [&](auto tiles, int tile, int count) {
                for (tile += first; count > 0; --count, tile += tiles())
                    score_tile<tiles(), T>(head, query, tile * 16);
            });
            float factors[T];
            for (int t = 0; t < T; ++t)
                factors[t] = soften(head, t, first * 16, last * 16,
                                    call.bias ? call.bias - (query + t) : nullptr);
            each_run<kAttentionTiles>(column_tiles, [&](auto tiles, int tile, int count) {
                for (; count > 0; --count, tile += tiles())
                    context_tile<tiles(), T>(head, query, tile * 16, first * 16, last * 16,
                                             factors);
            });
        }
    });
}
