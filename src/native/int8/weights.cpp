#include "weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace sparsebert {
namespace {

int panels_of(const Int8Weight& w) { return (w.columns + w.panel_columns - 1) / w.panel_columns; }

bool fits_pairs(const Int8Weight& w) {
    if (w.columns % 2 || w.panel_columns % 2) return false;
    const size_t words = static_cast<size_t>(panels_of(w)) * w.rows;
    for (size_t i = 0; i < words; ++i)
        if (w.bits[i] & w.bits[i] >> 1 & 0x5555555555555555) return false;
    return true;
}

// Calls visit(row, column, value) for each kept value.
template <typename Visit>
void each_kept(const Int8Weight& w, const Visit& visit) {
    for (int panel = 0; panel < panels_of(w); ++panel)
        for (int row = 0; row < w.rows; ++row) {
            const size_t at = static_cast<size_t>(panel) * w.rows + row;
            const int8_t* value = w.values + at * w.kept;
            for (uint64_t bits = w.bits[at]; bits; bits &= bits - 1)
                visit(row, panel * w.panel_columns + __builtin_ctzll(bits), *value++);
        }
}

}  // namespace

Int8Weight for_kernels(const Int8Weight& bitmap, Bytes& memory) {
    const bool pairs = fits_pairs(bitmap);
    const size_t groups = static_cast<size_t>(bitmap.tiles()) * bitmap.groups();
    const size_t group_bytes = kTileRows * (pairs ? kGroupInputs / 2 : kGroupInputs);
    const size_t bytes = groups * (group_bytes + (pairs ? sizeof(uint64_t) : 0));
    uint8_t* const to = memory.reserve(bytes);
    std::memset(to, 0, bytes);
    int8_t* const values = reinterpret_cast<int8_t*>(to);
    uint64_t* const bits = reinterpret_cast<uint64_t*>(to + groups * group_bytes);
    each_kept(bitmap, [&](int row, int column, int8_t value) {
        const size_t group =
            static_cast<size_t>(row / kTileRows) * bitmap.groups() + column / kGroupInputs;
        const int pair = column % kGroupInputs / 2, second = column % 2;
        const int place = row % kTileRows * 4 + pair;
        if (pairs) {
            values[group * group_bytes + place] = value;
            bits[group] |= static_cast<uint64_t>(second) << place;
        } else {
            values[group * group_bytes + second * kTileRows * 4 + place] = value;
        }
    });
    Int8Weight found = bitmap;
    found.layout = pairs ? Int8Layout::kPairs : Int8Layout::kDense;
    found.values = values;
    found.bits = pairs ? bits : nullptr;
    return found;
}

bool has_small_pairs(const Int8Weight& weight) {
    size_t bytes = static_cast<size_t>(weight.tiles()) * int8_expansion(weight.columns);
    if (weight.layout == Int8Layout::kPairs)
        bytes /= 2;
    else if (weight.layout != Int8Layout::kDense)
        return false;
    int largest = 0;  // of |a + b|: two of opposite signs always fit
    for (size_t i = 0; i < bytes; i += 2)
        largest = std::max(largest, std::abs(weight.values[i] + weight.values[i + 1]));
    return largest <= 128;
}

}  // namespace sparsebert
