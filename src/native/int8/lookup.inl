// 1:2 linear layers with lookup tables, for CPUs whose blends take a multiply's port. There are 16
// ways to choose one input of each of a group's four pairs. For 16 tokens at a time, all 16 choices
// are written to a table that stays in L1; then each weight row's four bits of a group index the
// entry that its four values multiply. Tokens are in the lanes, so a tile's sums are transposed at
// the end. The table's 16 stores serve every row of a layer.
//
// Four rows by four vectors take 21 loads for 16 multiplies. Intel: 10.5 cycles at two loads and
// two multiplies per cycle, where blends take 16. AMD Zen 4: 21 at one load per cycle, where blends
// take 16.
#pragma once

#include "../kernels/transpose_avx512.inl"

// Register block, rows x vectors of sums; a full table has as many vectors.
constexpr int kLookupRows = 4, kLookupVectors = kLookupTokens / 16;
constexpr int kLookupEntryBytes = kLookupVectors * 64;
// With fewer tokens, loading the weights outweighs what lookups save. A vector with few tokens
// costs as much as a full one, so few are left to the blends.
constexpr int kFewestLookupTokens = 40, kFewestOfVector = 8;

// Writes the table of `groups` groups for `tokens` tokens, from x on, to out [group][16
// entries][kLookupVectors][64].
[[gnu::noinline]] inline void write_table(const uint8_t* x, size_t stride, int tokens, int groups,
                                          uint8_t* out) {
    __m512i fours[16];  // [token], then [group][first or second of each pair]
    const __mmask16 present = static_cast<__mmask16>((1u << 2 * groups) - 1);
#pragma GCC unroll 16
    for (int t = 0; t < 16; ++t)
        fours[t] = _mm512_maskz_loadu_epi32(t < tokens ? present : 0, x + t * stride);
    transpose_16x16(fours);
    for (int choice = 0; choice < 16; ++choice, out += kLookupEntryBytes) {
        const __mmask64 second = choice * 0x1111111111111111ull;
#pragma GCC unroll 8
        for (int g = 0; g < kLookupGroups; ++g)
            if (g < groups)
                _mm512_store_si512(out + g * 16 * kLookupEntryBytes,
                                   _mm512_mask_blend_epi8(second, fours[2 * g], fours[2 * g + 1]));
    }
}

// Adds a run of groups to a tile's sums [16 rows][kLookupVectors][16 tokens]; `loaded` is empty for
// the first run. `values` and `bits` are the tile's for these groups.
template <int V>
[[gnu::noinline]] void sum_lookup(const int8_t* values, const uint64_t* bits, int groups,
                                  const uint8_t* table, __mmask16 loaded, int32_t* partial) {
    for (int row = 0; row < kTileRows;
         row += kLookupRows, partial += kLookupRows * kLookupVectors * 16) {
        Sums sums[kLookupRows][V];
#pragma GCC unroll 4
        for (int r = 0; r < kLookupRows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                sums[r][v] =
                    _mm512_maskz_load_epi32(loaded, partial + (r * kLookupVectors + v) * 16);
        const uint8_t* entries = table;
        for (int g = 0; g < groups; ++g, entries += 16 * kLookupEntryBytes) {
            const uint64_t choices = bits[g] >> 4 * row;
#pragma GCC unroll 4
            for (int r = 0; r < kLookupRows; ++r) {
                const uint8_t* entry = entries + (choices >> 4 * r & 15) * kLookupEntryBytes;
                const Weights weights =
                    load_four(reinterpret_cast<const uint8_t*>(values) + g * 64 + (row + r) * 4);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v)
                    dot(sums[r][v], _mm512_load_si512(entry + v * 64), weights);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < kLookupRows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                _mm512_store_si512(partial + (r * kLookupVectors + v) * 16, sums[r][v]);
    }
}

// Computes y of a tile and T tokens from the sums [16 rows][kLookupVectors][16 tokens].
template <int T>
[[gnu::noinline]] void finish_lookup(const LinearTile<1, T>& tile, const int32_t* partial) {
    __m512i lanes[16];
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r)
        lanes[r] = _mm512_load_si512(partial + r * kLookupVectors * 16);
    transpose_16x16(lanes);
    Sums sums[1][T];
    tile.begin(sums);
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) sums[0][t] = _mm512_add_epi32(sums[0][t], lanes[t]);
    tile.end(sums);
}

// V vectors of tokens through tiles [tile_begin, tile_end).
template <int V>
void lookup_tiles(const Int8Linear& call, int first, int tokens, int tile_begin, int tile_end) {
    const Int8Weight& w = *call.weight;
    const int groups = w.groups();
    const size_t tile_sums = kTileRows * kLookupVectors * 16;
    uint8_t* table = reinterpret_cast<uint8_t*>(call.scratch);
    int32_t* sums = reinterpret_cast<int32_t*>(table + kLookupTableBytes);
    for (int group = 0; group < groups; group += kLookupGroups) {
        const int count = std::min(kLookupGroups, groups - group);
        const uint8_t* x = call.x.values + first * call.x.stride + group * kGroupInputs;
        for (int v = 0; v < V; ++v)
            write_table(x + v * 16 * call.x.stride, call.x.stride, std::min(16, tokens - v * 16),
                        count, table + v * 64);
        for (int tile = tile_begin; tile < tile_end; ++tile) {
            const size_t at = static_cast<size_t>(tile) * groups + group;
            int32_t* partial = sums + (tile - tile_begin) * tile_sums;
            for (int g = 0; g < count; ++g)  // the next tile's
                __builtin_prefetch(w.values + (at + groups + g) * 64, 0, 2);
            __builtin_prefetch(w.bits + at + groups, 0, 2);
            sum_lookup<V>(w.values + at * 64, w.bits + at, count, table, group ? 0xFFFF : 0,
                          partial);
            if (group + count < groups) continue;
            for (int v = 0; v < V; ++v)
                with_constant<17 - kFewestOfVector>(
                    std::min(16, tokens - v * 16) - kFewestOfVector + 1, [&](auto more) {
                        constexpr int T = kFewestOfVector - 1 + more();
                        finish_lookup(LinearTile<1, T>{call, tile, first + v * 16},
                                      partial + v * 16);
                    });
        }
    }
}

void linear_by_lookup(const Int8Linear& call, int tile_begin, int tile_end) {
    if (call.weight->layout != Int8Layout::kPairs) return linear(call, tile_begin, tile_end);
    int first = 0;
    for (;;) {
        int tokens = std::min(call.tokens - first, kLookupTokens);
        if (tokens % 16 < kFewestOfVector) tokens -= tokens % 16;
        if (tokens < kFewestLookupTokens) break;
        const auto run = tokens > 48 ? lookup_tiles<4> : lookup_tiles<3>;
        for (int tile = tile_begin; tile < tile_end; tile += kLookupTiles)
            run(call, first, tokens, tile, std::min(tile_end, tile + kLookupTiles));
        first += tokens;
    }
    if (first < call.tokens) linear(tokens_from(call, first), tile_begin, tile_end);
}
