// 1:2 linear layers with lookup tables, as in lookup.inl, for NEON: a load takes the place of a
// dense layer's second product, and loads have ports of their own. A register's lanes hold four
// tokens, and one lane of weights multiplies them all. Included by files that have defined that
// product, `multiply_by_lane`.
//
// Two rows by 32 tokens take 17 loads for 16 dot products, where a dense layer takes 32 dot
// products. Neoverse N1 has two ports for loads and two for products; Apple's cores have three and
// four.
#pragma once

constexpr int kLookupLanes = 4, kLookupVectors = kLookupTokens / kLookupLanes;
constexpr int kLookupEntryBytes = kLookupVectors * 16;
// Register block, rows x vectors of sums. With fewer tokens the tables cost more than they save.
constexpr int kLookupRows = 2, kVectorsAtOnce = 8, kFewestLookupTokens = 8;

// Writes the table of one group for `tokens` tokens, from x on, to out [16
// entries][kLookupVectors][4][4].
[[gnu::noinline]] inline void write_table(const uint8_t* x, size_t stride, int tokens,
                                          uint8_t* out) {
    const int vectors = (tokens + kLookupLanes - 1) / kLookupLanes;
    uint8x16_t firsts[kLookupVectors], seconds[kLookupVectors];  // of each pair
    for (int v = 0; v < vectors; ++v) {
        uint32x2_t groups[kLookupLanes];
        for (int i = 0; i < kLookupLanes; ++i) {
            const int token = v * kLookupLanes + i;
            groups[i] =
                vreinterpret_u32_u8(token < tokens ? vld1_u8(x + token * stride) : vdup_n_u8(0));
        }
        const uint32x4_t one = vcombine_u32(groups[0], groups[1]);
        const uint32x4_t other = vcombine_u32(groups[2], groups[3]);
        firsts[v] = vreinterpretq_u8_u32(vuzp1q_u32(one, other));
        seconds[v] = vreinterpretq_u8_u32(vuzp2q_u32(one, other));
    }
    const uint8x16_t each = vreinterpretq_u8_u32(vdupq_n_u32(0x08040201));
    for (int choice = 0; choice < 16; ++choice, out += kLookupEntryBytes) {
        const uint8x16_t second = vtstq_u8(vdupq_n_u8(choice), each);
        for (int v = 0; v < vectors; ++v) {
            const Inputs entry = as_inputs(vbslq_u8(second, seconds[v], firsts[v]));
            std::memcpy(out + v * 16, &entry, sizeof entry);
        }
    }
}

template <int Row, int V>
[[gnu::always_inline]] inline void add_entry(int32x4_t (&sums)[V], const uint8_t* entry,
                                             int8x8_t weights) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
        Inputs inputs;
        std::memcpy(&inputs, entry + v * 16, sizeof inputs);
        sums[v] = multiply_by_lane<Row>(sums[v], inputs, weights);
    }
}

// Adds a run of groups to a tile's sums [16 rows][kLookupVectors][4 tokens], which the first run
// initialises. `values` and `bits` are the tile's for these groups.
template <int V>
[[gnu::noinline]] void sum_lookup(const int8_t* values, const uint64_t* bits, int groups,
                                  const uint8_t* table, bool first, int32_t* partial) {
    for (int row = 0; row < kTileRows; row += kLookupRows, partial += kLookupRows * kLookupTokens) {
        int32x4_t sums[kLookupRows][V];
#pragma GCC unroll 2
        for (int r = 0; r < kLookupRows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v)
                sums[r][v] =
                    first ? vdupq_n_s32(0) : vld1q_s32(partial + r * kLookupTokens + v * 4);
        const uint8_t* entries = table;
        for (int g = 0; g < groups; ++g, entries += 16 * kLookupEntryBytes) {
            const uint64_t choices = bits[g] >> 4 * row;
            const int8x8_t weights = vld1_s8(values + g * 64 + row * 4);
            add_entry<0>(sums[0], entries + (choices & 15) * kLookupEntryBytes, weights);
            add_entry<1>(sums[1], entries + (choices >> 4 & 15) * kLookupEntryBytes, weights);
        }
#pragma GCC unroll 2
        for (int r = 0; r < kLookupRows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) vst1q_s32(partial + r * kLookupTokens + v * 4, sums[r][v]);
    }
}

// Computes y of a tile and T tokens from the sums [16 rows][kLookupVectors][4 tokens].
template <int T>
[[gnu::noinline]] void finish_lookup(const LinearTile<1, T>& tile, const int32_t* partial) {
    Sums sums[1][T];
    tile.begin(sums);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        int32x4_t rows[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) rows[r] = vld1q_s32(partial + (4 * i + r) * kLookupTokens);
        transpose_4(rows);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) sums[0][t].v[i] = vaddq_s32(sums[0][t].v[i], rows[t]);
    }
    tile.end(sums);
}

// At most kLookupTokens tokens through at most kLookupTiles tiles.
inline void lookup_tiles(const Int8Linear& call, int first, int tokens, int tile_begin,
                         int tile_end) {
    const Int8Weight& w = *call.weight;
    const int groups = w.groups();
    uint8_t* table = reinterpret_cast<uint8_t*>(call.scratch);
    int32_t* sums = reinterpret_cast<int32_t*>(table + kLookupTableBytes);
    for (int group = 0; group < groups; group += kLookupGroups) {
        const int count = std::min(kLookupGroups, groups - group);
        const uint8_t* x = call.x.values + first * call.x.stride + group * kGroupInputs;
        for (int g = 0; g < count; ++g)
            write_table(x + g * kGroupInputs, call.x.stride, tokens,
                        table + g * 16 * kLookupEntryBytes);
        for (int tile = tile_begin; tile < tile_end; ++tile) {
            const size_t at = static_cast<size_t>(tile) * groups + group;
            int32_t* partial = sums + (tile - tile_begin) * kTileRows * kLookupTokens;
            for (int g = 0; g < count; ++g)  // the next tile's
                __builtin_prefetch(w.values + (at + groups + g) * 64, 0, 2);
            each_run<kVectorsAtOnce>(
                (tokens + kLookupLanes - 1) / kLookupLanes, [&](auto length, int v, int runs) {
                    for (; runs > 0; --runs, v += length())
                        sum_lookup<length()>(w.values + at * 64, w.bits + at, count, table + v * 16,
                                             group == 0, partial + v * kLookupLanes);
                });
            if (group + count < groups) continue;
            for (int t = 0; t < tokens; t += kLookupLanes)
                with_constant<kLookupLanes>(std::min(kLookupLanes, tokens - t), [&](auto here) {
                    finish_lookup(LinearTile<1, here()>{call, tile, first + t}, partial + t);
                });
        }
    }
}

void linear_by_lookup(const Int8Linear& call, int tile_begin, int tile_end) {
    if (call.weight->layout != Int8Layout::kPairs) return linear(call, tile_begin, tile_end);
    int first = 0;
    while (call.tokens - first >= kFewestLookupTokens) {
        const int tokens = std::min(call.tokens - first, kLookupTokens);
        for (int tile = tile_begin; tile < tile_end; tile += kLookupTiles)
            lookup_tiles(call, first, tokens, tile, std::min(tile_end, tile + kLookupTiles));
        first += tokens;
    }
    if (first < call.tokens) linear(tokens_from(call, first), tile_begin, tile_end);
}
