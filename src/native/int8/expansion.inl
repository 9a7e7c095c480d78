// Expands tables to the tiles that the inner loops read, and computes the sums of rows.
#pragma once

// Expands one tile of a kTable weight to kDense.
inline void expand_tile(const Int8Weight& w, int tile, int8_t* out) {
    std::memset(out, 0, int8_expansion(w.columns));
    const int begin = tile * kTileRows, end = std::min(w.rows, begin + kTileRows);
    for (int row = begin; row < end; ++row) {
        const int8_t* values = w.values + static_cast<size_t>(row) * w.columns;
        for (int column = 0; column < w.columns; ++column) {
            const int i = column % 8;  // 0 2 4 6 1 3 5 7
            out[(column / 8 * 2 + i % 2) * 64 + (row - begin) * 4 + i / 2] = values[column];
        }
    }
}

// The sums of 16 rows' values, over `fours` steps of four.
inline Sums value_sums(const int8_t* values, int fours) {
    constexpr uint8_t kOne = 1 + kInputOffset;
    const uint8_t ones[4] = {kOne, kOne, kOne, kOne};
    const Four one = load_four(ones);
    Sums sums = zero_sums();
    for (int i = 0; i < fours; ++i) dot(sums, one, load_weights(values + i * 64));
    return sums;
}

// What the sums of products with these values lack because inputs are offset.
inline Sums missing_sums(const int8_t* values, int fours) {
    if constexpr (kInputOffset == 0) return zero_sums();
    int32_t sums[kTileRows];
    store_sums(value_sums(values, fours), sums);
    return scaled_sums(sums, kInputOffset);
}

[[maybe_unused]] void row_sums(const Int8Weight& w, int32_t* out, int8_t* scratch) {
    const bool expanded = w.layout != Int8Layout::kPairs && w.layout != Int8Layout::kDense;
    const int fours = w.layout == Int8Layout::kPairs ? w.groups() : 2 * w.groups();
    for (int tile = 0; tile < w.tiles(); ++tile) {
        const int8_t* values =
            expanded ? scratch : w.values + static_cast<size_t>(tile) * fours * 64;
        if (expanded) expand_tile(w, tile, scratch);
        store_sums(value_sums(values, fours), out + tile * kTileRows);
    }
}
