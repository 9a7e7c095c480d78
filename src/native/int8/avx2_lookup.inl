// 1:2 linear layers with lookup tables, as in lookup.inl, for 256 bits: on these CPUs a blend of
// registers costs two or three instructions, whereas loading inputs that were chosen beforehand is
// part of the multiply. A register's lanes hold eight tokens. Included by files that have defined
//   kParts            registers that a group's four kept values take: one of bytes or two of words
//   split_group(x, firsts, seconds)   eight tokens' inputs [8] to [kParts][8 tokens], the first and
//                     the second of each pair
//   pick<Choice>(first, second)       the inputs that a part keeps, by one bit per pair
//   part_weights(values, out)         the kept values of a group, [16][4], as they are multiplied
//   add_products(sums, inputs, weights)
//   kFewestLookupTokens   with fewer tokens the tables cost more than they save
#pragma once

constexpr int kLookupVectors = 4, kLookupRun = kLookupVectors * 8;  // tokens
constexpr int kPartPairs = 4 / kParts, kPartChoices = 1 << kPartPairs;
constexpr int kEntryBytes = kLookupVectors * 32;
constexpr int kGroupTableBytes = kParts * kPartChoices * kEntryBytes;
constexpr int kTableBytes = 16 << 10;  // half of L1
constexpr int kTableGroups = kTableBytes / kGroupTableBytes;
constexpr int kGroupWeightBytes = kParts * kTileRows * 4;
static_assert(kTableBytes + kTableGroups * kGroupWeightBytes <= kLookupTableBytes);
constexpr int kLookupRows = 2;  // rows of accumulators

template <int... Choices>
inline void write_choices(__m256i first, __m256i second, uint8_t* out,
                          std::integer_sequence<int, Choices...>) {
    (_mm256_store_si256(reinterpret_cast<__m256i*>(out + Choices * kEntryBytes),
                        pick<Choices>(first, second)),
     ...);
}

// Writes the table of one group for `tokens` tokens, from x on, to out
// [kParts][kPartChoices][kLookupVectors][8 tokens][4 bytes].
[[gnu::noinline]] inline void write_table(const uint8_t* x, size_t stride, int tokens,
                                          uint8_t* out) {
    for (int first = 0; first < tokens; first += 8, out += 32) {
        alignas(32) uint64_t groups[8] = {};
        for (int t = 0; t < 8 && first + t < tokens; ++t)
            std::memcpy(&groups[t], x + (first + t) * stride, sizeof groups[t]);
        __m256i firsts[kParts], seconds[kParts];
        split_group(groups, firsts, seconds);
        for (int part = 0; part < kParts; ++part)
            write_choices(firsts[part], seconds[part], out + part * kPartChoices * kEntryBytes,
                          std::make_integer_sequence<int, kPartChoices>());
    }
}

// Adds a run of groups to a tile's sums [16 rows][kLookupRun tokens], which the first run
// initialises. `weights` and `bits` are the tile's for these groups.
template <int V>
[[gnu::noinline]] void sum_lookup(const uint8_t* weights, const uint64_t* bits, int groups,
                                  const uint8_t* table, bool first, int32_t* partial) {
    for (int row = 0; row < kTileRows; row += kLookupRows, partial += kLookupRows * kLookupRun) {
        __m256i sums[kLookupRows][V];
#pragma GCC unroll 2
        for (int r = 0; r < kLookupRows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                sums[r][v] = first ? _mm256_setzero_si256()
                                   : _mm256_load_si256(reinterpret_cast<const __m256i*>(
                                         partial + r * kLookupRun + v * 8));
        const uint8_t* entries = table;
        const uint8_t* from = weights + row * kParts * 4;
        for (int g = 0; g < groups; ++g, entries += kGroupTableBytes, from += kGroupWeightBytes) {
            const uint64_t choices = bits[g] >> 4 * row;
#pragma GCC unroll 2
            for (int r = 0; r < kLookupRows; ++r)
#pragma GCC unroll 2
                for (int part = 0; part < kParts; ++part) {
                    const int choice = choices >> (4 * r + part * kPartPairs) & (kPartChoices - 1);
                    const uint8_t* entry = entries + (part * kPartChoices + choice) * kEntryBytes;
                    int32_t four;
                    std::memcpy(&four, from + (r * kParts + part) * 4, sizeof four);
                    const __m256i weight = _mm256_set1_epi32(four);
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v)
                        sums[r][v] = add_products(
                            sums[r][v],
                            _mm256_load_si256(reinterpret_cast<const __m256i*>(entry + v * 32)),
                            weight);
                }
        }
#pragma GCC unroll 2
        for (int r = 0; r < kLookupRows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
                _mm256_store_si256(reinterpret_cast<__m256i*>(partial + r * kLookupRun + v * 8),
                                   sums[r][v]);
    }
}

// Transposes 8 x 8 numbers from rows `from_stride` apart to rows `to_stride` apart.
inline void transpose_8x8(const int32_t* from, size_t from_stride, int32_t* to, size_t to_stride) {
    __m256i a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {  // row i beside row i + 4, halves of columns
        const auto half = [&](int row, int column) {
            return _mm_load_si128(
                reinterpret_cast<const __m128i*>(from + row * from_stride + column));
        };
        a[i] = _mm256_setr_m128i(half(i, 0), half(i + 4, 0));
        a[4 + i] = _mm256_setr_m128i(half(i, 4), half(i + 4, 4));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        const __m256i low = _mm256_unpacklo_epi32(a[i], a[i + 1]);
        const __m256i high = _mm256_unpackhi_epi32(a[i], a[i + 1]);
        const __m256i next_low = _mm256_unpacklo_epi32(a[i + 2], a[i + 3]);
        const __m256i next_high = _mm256_unpackhi_epi32(a[i + 2], a[i + 3]);
        b[i] = _mm256_unpacklo_epi64(low, next_low);
        b[i + 1] = _mm256_unpackhi_epi64(low, next_low);
        b[i + 2] = _mm256_unpacklo_epi64(high, next_high);
        b[i + 3] = _mm256_unpackhi_epi64(high, next_high);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + i * to_stride), b[i]);
}

// Computes y of a tile and at most eight tokens from the sums [16 rows][kLookupRun tokens].
[[gnu::noinline]] inline void finish_lookup(const Int8Linear& call, int tile, int first, int tokens,
                                            const int32_t* partial) {
    alignas(32) int32_t rows[8][kTileRows];
    for (int r = 0; r < kTileRows; r += 8)
        transpose_8x8(partial + r * kLookupRun, kLookupRun, &rows[0][r], kTileRows);
    for (int t = 0; t < tokens; ++t) {
        const LinearTile<1, 1> at{call, tile, first + t};
        Sums sums[1][1];
        at.begin(sums);
        const Sums found = load_sums(rows[t]);
        constexpr int kRegisters = sizeof found.v / sizeof found.v[0];
#pragma GCC unroll 4
        for (int i = 0; i < kRegisters; ++i)
            sums[0][0].v[i] = _mm256_add_epi32(sums[0][0].v[i], found.v[i]);
        at.end(sums);
    }
}

// At most kLookupRun tokens through at most kLookupTiles tiles.
inline void lookup_tiles(const Int8Linear& call, int first, int tokens, int tile_begin,
                         int tile_end) {
    const Int8Weight& w = *call.weight;
    const int groups = w.groups();
    uint8_t* table = reinterpret_cast<uint8_t*>(call.scratch);
    uint8_t* weights = table + kTableBytes;
    int32_t* sums = reinterpret_cast<int32_t*>(table + kLookupTableBytes);
    for (int group = 0; group < groups; group += kTableGroups) {
        const int count = std::min(kTableGroups, groups - group);
        const uint8_t* x = call.x.values + first * call.x.stride + group * kGroupInputs;
        for (int g = 0; g < count; ++g)
            write_table(x + g * kGroupInputs, call.x.stride, tokens, table + g * kGroupTableBytes);
        for (int tile = tile_begin; tile < tile_end; ++tile) {
            const size_t at = static_cast<size_t>(tile) * groups + group;
            int32_t* partial = sums + (tile - tile_begin) * kTileRows * kLookupRun;
            for (int g = 0; g < count; ++g) {
                __builtin_prefetch(w.values + (at + groups + g) * 64, 0, 2);  // the next tile's
                part_weights(w.values + (at + g) * 64, weights + g * kGroupWeightBytes);
            }
            with_constant<kLookupVectors>((tokens + 7) / 8, [&](auto vectors) {
                sum_lookup<vectors()>(weights, w.bits + at, count, table, group == 0, partial);
            });
            if (group + count < groups) continue;
            for (int t = 0; t < tokens; t += 8)
                finish_lookup(call, tile, first + t, std::min(8, tokens - t), partial + t);
        }
    }
}

void linear_by_lookup(const Int8Linear& call, int tile_begin, int tile_end) {
    if (call.weight->layout != Int8Layout::kPairs) return linear(call, tile_begin, tile_end);
    int first = 0;
    while (call.tokens - first >= kFewestLookupTokens) {
        const int tokens = std::min(call.tokens - first, kLookupRun);
        for (int tile = tile_begin; tile < tile_end; tile += kLookupTiles)
            lookup_tiles(call, first, tokens, tile, std::min(tile_end, tile + kLookupTiles));
        first += tokens;
    }
    if (first < call.tokens) linear(tokens_from(call, first), tile_begin, tile_end);
}
