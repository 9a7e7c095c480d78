// 1:2 linear layers as dense ones with zeros between: with more than a few tokens a dot product is
// cheaper than the `tbl` that would save another. A tile's weights are expanded once for all tokens
// and stay in L1; only reading is saved.
#pragma once

constexpr int kFewestExpanded = 8;  // tokens

// Expands the kept values of a group, [16][4], to its first and its second inputs, with zeros for
// what is not kept.
inline void expand_group(const int8_t* values, const uint64_t* seconds, int8_t* out) {
    const Weights kept = load_weights(values);
    const Masks second = load_masks(seconds);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const int8x16_t mask = vreinterpretq_s8_u8(second.v[i]);
        vst1q_s8(out + i * 16, vbicq_s8(kept.v[i], mask));
        vst1q_s8(out + 64 + i * 16, vandq_s8(kept.v[i], mask));
    }
}

void linear_expanded(const Int8Linear& call, int tile_begin, int tile_end) {
    const Int8Weight& w = *call.weight;
    if (w.layout != Int8Layout::kPairs || call.tokens < kFewestExpanded)
        return linear(call, tile_begin, tile_end);
    for (int tile = tile_begin; tile < tile_end; ++tile) {
        const size_t first = static_cast<size_t>(tile) * w.groups();
        for (int g = 0; g < w.groups(); ++g)
            expand_group(w.values + (first + g) * 64, w.bits + first + g, call.scratch + g * 128);
        each_run<kDenseTokens>(call.tokens, [&](auto length, int token, int runs) {
            dense_tiles(LinearTile<1, length()>{call, tile, token}, call.scratch, runs);
        });
    }
}
