#include "int8_matrix.h"

#include "int8/weights.h"
#include "shared_rows.h"

#include <algorithm>

namespace sparsebert {

const std::vector<Int8Form> kInt8Forms = {{Int8Layout::kPairs, 1, 2},
                                          {Int8Layout::kDense},
                                          {Int8Layout::kBitmap, 2, 4},
                                          {Int8Layout::kBitmap, 3, 5},
                                          {Int8Layout::kBitmap, 1, 3},
                                          {Int8Layout::kBitmap, 1, 4},
                                          {Int8Layout::kTable},
                                          {Int8Layout::kSharedPairs, 1, 2, 16},
                                          {Int8Layout::kSharedPairs, 1, 2, 128}};

std::string Int8Form::name() const {
    if (layout == Int8Layout::kDense) return "dense";
    if (layout == Int8Layout::kTable) return "table";
    const std::string pattern = std::to_string(n) + ":" + std::to_string(m);
    return shared > 1 ? pattern + " shared by " + std::to_string(shared) : pattern;
}

int Int8Form::fitting(int columns) const { return m ? (columns + m - 1) / m * m : columns; }

namespace {

int8_t draw(Contents contents, Random& random) {
    switch (contents) {
        case Contents::kExtreme:
            return static_cast<int8_t>(random.pick({-128, 127, 127, -127}));
        case Contents::kSparse:
            return static_cast<int8_t>(random.chance(0.1) ? random.between(-128, 127) : 0);
        case Contents::kHalf:
            return static_cast<int8_t>(random.chance(0.6) ? random.pick({64, 64, -64})
                                                          : random.between(-64, 64));
        default:
            return static_cast<int8_t>(random.between(-128, 127));
    }
}

}  // namespace

Int8Matrix::Int8Matrix(const Int8Form& form_, int rows_, int columns_, Contents contents,
                       Random& random)
    : form(form_),
      rows(rows_),
      columns(columns_),
      plain(static_cast<size_t>(rows_) * columns_),
      scales(round_up(rows_, kTileRows)),
      bias(round_up(rows_, kTileRows)),
      sums(round_up(rows_, kTileRows)) {
    std::vector<bool> kept(plain.size(), true);
    const int group = form.m ? form.m : columns;
    for (size_t begin = 0; begin < plain.size(); begin += group) {
        if (form.m) {
            // Knuth's selection sampling: every set of n out of m is equally likely.
            for (int i = 0, wanted = form.n; i < form.m; ++i) {
                kept[begin + i] = random.between(1, form.m - i) <= wanted;
                wanted -= kept[begin + i];
            }
        }
        if (begin / columns % form.shared)  // like the row above
            for (int i = 0; i < group; ++i) kept[begin + i] = kept[begin + i - columns];
        const bool all_zero = contents == Contents::kSparse && random.chance(0.2);
        for (int i = 0; i < group; ++i)
            plain[begin + i] = kept[begin + i] && !all_zero ? draw(contents, random) : 0;
    }
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) sums[row] += value(row, column);
    if (form.layout == Int8Layout::kPairs) {
        pack_pairs(kept);
    } else if (form.layout == Int8Layout::kSharedPairs) {
        pack_shared_pairs(kept);
    } else if (form.layout == Int8Layout::kDense) {
        pack_dense();
    } else if (form.layout == Int8Layout::kBitmap) {
        pack_bitmap(kept);
    } else {
        values = Guarded<int8_t>(plain.size());
        std::copy(plain.begin(), plain.end(), values.begin());
    }
}

// values[t][g][r][i]: the kept weight of row 16 t + r in pair 4 g + i; bit 4 r + i: whether it is
// the odd one.
void Int8Matrix::pack_pairs(const std::vector<bool>& kept) {
    const size_t tiles = (rows + 15) / 16, groups = (columns + 7) / 8;
    values = Guarded<int8_t>(tiles * groups * 64);
    bits = Guarded<uint64_t>(tiles * groups);
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const int pair = column / 2, index = row % 16 * 4 + pair % 4;
            const size_t word = row / 16 * groups + pair / 4;
            if (!kept[static_cast<size_t>(row) * columns + column]) continue;
            values[word * 64 + index] = static_cast<int8_t>(value(row, column));
            bits[word] |= static_cast<uint64_t>(column % 2) << index;
        }
}

// values[t][f][r][i]: the kept weight of row 16 t + r in pair 4 f + i; the number of fours is even.
void Int8Matrix::pack_shared_pairs(const std::vector<bool>& kept) {
    const size_t tiles = (rows + 15) / 16, fours = (columns + 15) / 16 * 2;
    values = Guarded<int8_t>(tiles * fours * 64);
    second = Guarded<uint8_t>((rows + form.shared - 1) / form.shared * fours * 4);
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const int pair = column / 2;
            if (!kept[static_cast<size_t>(row) * columns + column]) continue;
            values[(row / 16 * fours + pair / 4) * 64 + row % 16 * 4 + pair % 4] =
                static_cast<int8_t>(value(row, column));
            second[row / form.shared * fours * 4 + pair] = column % 2 ? 0xFF : 0;
        }
}

// values[t][2 g + h][r][i]: input 8 g + 2 i + h of row 16 t + r.
void Int8Matrix::pack_dense() {
    const size_t tiles = (rows + 15) / 16, groups = (columns + 7) / 8;
    values = Guarded<int8_t>(tiles * groups * 128);
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const int half = column % 2, i = column % 8 / 2;
            const size_t step = (row / 16 * groups + column / 8) * 2 + half;
            values[step * 64 + row % 16 * 4 + i] = static_cast<int8_t>(value(row, column));
        }
}

// values[p][r][k] and bits[p][r]: the kept weights of row r in panel p, and their columns there.
void Int8Matrix::pack_bitmap(const std::vector<bool>& kept) {
    const int width = kPanelColumns / form.m * form.m, most = width / form.m * form.n;
    const size_t panels = (columns + width - 1) / width;
    values = Guarded<int8_t>(panels * rows * most);
    bits = Guarded<uint64_t>(panels * rows);
    std::vector<int> next(panels * rows);
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const size_t panel = static_cast<size_t>(column / width) * rows + row;
            if (!kept[static_cast<size_t>(row) * columns + column]) continue;
            values[panel * most + next[panel]++] = static_cast<int8_t>(value(row, column));
            bits[panel] |= uint64_t{1} << (column % width);
        }
}

Int8Weight Int8Matrix::weight() const {
    Int8Weight weight;
    weight.layout = form.layout;
    weight.rows = rows;
    weight.columns = columns;
    if (form.layout == Int8Layout::kBitmap) {
        weight.panel_columns = kPanelColumns / form.m * form.m;
        weight.kept = weight.panel_columns / form.m * form.n;
    }
    weight.values = values.data();
    weight.bits = bits.data();
    weight.second = second.data();
    weight.shared_rows = form.shared;
    weight.scales = scales.data();
    weight.sums = sums.data();
    weight.bias = bias.data();
    if (form.layout == Int8Layout::kBitmap) weight = for_kernels(weight, converted);
    const bool shared = form.layout == Int8Layout::kSharedPairs;
    weight.small_pairs = has_small_pairs(shared ? kept_inputs(weight) : weight);
    return weight;
}

}  // namespace sparsebert
