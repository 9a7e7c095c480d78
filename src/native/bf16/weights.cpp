#include "weights.h"

#include <cstring>
#include <vector>

#include "../half.h"
#include "../shared_rows.h"
#include "bf16.h"

namespace sparsebert {
namespace {

float value_at(const Matrix& w, size_t index) {
    return w.half ? half_to_float(static_cast<const uint16_t*>(w.values)[index])
                  : static_cast<const float*>(w.values)[index];
}

size_t panels_of(const Matrix& w) { return (w.columns + w.panel_columns - 1) / w.panel_columns; }

size_t values_of(const Matrix& w) {
    switch (w.layout) {
        case Layout::kSharedPairs:
            return static_cast<size_t>(w.rows) * (w.columns / 2);
        case Layout::kPairs:
        case Layout::kBitmap:
            return panels_of(w) * w.rows * w.kept;
        default:
            return static_cast<size_t>(w.rows) * w.columns;
    }
}

Matrix rounded(const Matrix& weight, Bytes& memory) {
    const size_t count = values_of(weight);
    float* values = reinterpret_cast<float*>(memory.reserve(count * sizeof(float)));
    for (size_t i = 0; i < count; ++i) values[i] = from_bf16(to_bf16(value_at(weight, i)));
    Matrix found = weight;
    found.half = false;
    found.rounded = true;
    found.values = values;
    return found;
}

// A row of a kDense or kBitmap weight, zeros where nothing is kept.
void unpack_row(const Matrix& w, int row, float* out) {
    if (w.layout == Layout::kDense) {
        for (int c = 0; c < w.columns; ++c)
            out[c] = value_at(w, static_cast<size_t>(row) * w.columns + c);
        return;
    }
    std::memset(out, 0, sizeof(float) * w.columns);
    for (size_t panel = 0; panel < panels_of(w); ++panel) {
        const size_t at = panel * w.rows + row;
        size_t value = at * w.kept;
        for (uint64_t bits = static_cast<const uint64_t*>(w.bits)[at]; bits; bits &= bits - 1)
            out[panel * w.panel_columns + __builtin_ctzll(bits)] = value_at(w, value++);
    }
}

// The position of word `word` of row `row` in a tile of 16 lines, which is also that of its bit in
// `seconds`.
struct Place {
    Place(Products products, int row, int word)
        : line(products == Products::kBf16Tiles ? row : word / 2),
          at(products == Products::kBf16Tiles ? word : 2 * row + word % 2) {}
    int line, at;
};

void lay_out_dense(const Matrix& w, Products products, uint16_t* out) {
    std::vector<float> values(w.columns);
    const size_t tile_words = static_cast<size_t>(bf16_panels(w.columns)) * 2 * kBf16TileWords;
    for (int row = 0; row < w.rows; ++row) {
        unpack_row(w, row, values.data());
        uint16_t* tile = out + row / kBf16TileRows * tile_words;
        for (int c = 0; c < w.columns; ++c) {
            const int panel = c / kPanelColumns, inside = c % kPanelColumns;
            const Place place(products, row % kBf16TileRows, inside / 2);
            tile[(panel * 2 + inside % 2) * kBf16TileWords + place.line * 32 + place.at] =
                to_bf16(values[c]);
        }
    }
}

void lay_out_pairs(const Matrix& w, Products products, Bf16Pairs* out) {
    const int panels = bf16_panels(w.columns);
    for (int panel = 0; panel < panels; ++panel) {
        // If the last panel has fewer inputs, its remaining values are not read.
        const int left = w.columns - panel * kPanelColumns;
        const int pairs = (left < kPanelColumns ? left : kPanelColumns) / 2;
        for (int row = 0; row < w.rows; ++row) {
            const size_t at = static_cast<size_t>(panel) * w.rows + row;
            Bf16Pairs& tile = out[row / kBf16TileRows * panels + panel];
            const uint32_t seconds = static_cast<const uint32_t*>(w.bits)[at];
            for (int p = 0; p < pairs; ++p) {
                const Place place(products, row % kBf16TileRows, p);
                tile.kept[place.line][place.at] = to_bf16(value_at(w, at * 32 + p));
                tile.seconds[place.line] |= (seconds >> p & 1) << place.at;
            }
        }
    }
}

}  // namespace

Matrix in_bf16(const Matrix& weight, Products products, Bytes& memory) {
    if (products == Products::kRounded) return rounded(weight, memory);
    const bool pairs = weight.layout == Layout::kPairs;
    const bool shared = weight.layout == Layout::kSharedPairs;
    const Matrix kept = shared ? kept_inputs(weight) : weight;
    const size_t tiles = (weight.rows + kBf16TileRows - 1) / kBf16TileRows;
    const size_t tile_bytes =
        pairs ? sizeof(Bf16Pairs) : 2 * kBf16TileWords * sizeof(uint16_t);  // per panel
    const size_t bytes = tiles * bf16_panels(kept.columns) * tile_bytes;
    uint8_t* values = memory.reserve(bytes);
    std::memset(values, 0, bytes);
    if (pairs)
        lay_out_pairs(weight, products, reinterpret_cast<Bf16Pairs*>(values));
    else
        lay_out_dense(kept, products, reinterpret_cast<uint16_t*>(values));
    Matrix found = weight;
    found.layout = pairs    ? Layout::kBf16Pairs
                   : shared ? Layout::kBf16SharedPairs
                            : Layout::kBf16Dense;
    found.half = false;
    found.values = values;
    return found;
}

}  // namespace sparsebert
