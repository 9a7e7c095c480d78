#include "float_matrix.h"

#include <cmath>

namespace sparsebert {

const std::vector<FloatForm> kFloatForms = {{Layout::kDense, false},
                                            {Layout::kPairs, false, 1, 2},
                                            {Layout::kBitmap, false, 2, 4},
                                            {Layout::kBitmap, false, 3, 5},
                                            {Layout::kBitmap, false, 1, 3},
                                            {Layout::kDense, true},
                                            {Layout::kPairs, true, 1, 2},
                                            {Layout::kBitmap, true, 2, 4},
                                            {Layout::kSharedPairs, false, 1, 2, 16},
                                            {Layout::kSharedPairs, true, 1, 2, 64}};

std::string FloatForm::name() const {
    const std::string pattern = m ? std::to_string(n) + ":" + std::to_string(m) : "dense";
    const std::string by = shared > 1 ? " shared by " + std::to_string(shared) : "";
    return (half ? "fp16 " : "fp32 ") + pattern + by;
}

int FloatForm::fitting(int columns) const { return m ? (columns + m - 1) / m * m : columns; }

namespace {

// An fp16 near x, from the definition: sign, exponent less 15, ten bits of fraction; subnormals
// below.
uint16_t to_half(double x) {
    const int sign = x < 0 ? 0x8000 : 0;
    int exponent = 0;
    std::frexp(x, &exponent);
    exponent = std::max(exponent + 14, 1);
    int fraction = static_cast<int>(std::ldexp(std::abs(x), 25 - exponent));
    if (fraction < 1024) return static_cast<uint16_t>(sign | fraction);
    return static_cast<uint16_t>(sign | exponent << 10 | (fraction - 1024));
}
double from_half(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const double value =
        exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    return half & 0x8000 ? -value : value;
}

}  // namespace

FloatMatrix::FloatMatrix(const FloatForm& form_, int rows_, int columns_, float scale,
                         Random& random)
    : form(form_), rows(rows_), columns(columns_), plain(static_cast<size_t>(rows_) * columns_) {
    const bool shared = form.layout == Layout::kSharedPairs;
    const int width = form.m && !shared ? kPanelColumns / form.m * form.m : columns;
    const int most = form.m ? width / form.m * form.n : columns;  // values of a row in a panel
    const size_t panels = (columns + width - 1) / width;
    if (form.half)
        halves = Guarded<uint16_t>(panels * rows * most);
    else
        singles = Guarded<float>(panels * rows * most);
    if (form.layout == Layout::kPairs) pair_bits = Guarded<uint32_t>(panels * rows);
    if (form.layout == Layout::kBitmap) bitmap = Guarded<uint64_t>(panels * rows);
    const size_t bytes = (columns + 15) / 16;  // of a block's bits
    if (shared) shared_bits = Guarded<uint8_t>((rows + form.shared - 1) / form.shared * bytes);
    const int group = form.m ? form.m : 1;
    for (int row = 0; row < rows; ++row)
        for (int begin = 0; begin < columns; begin += group) {
            const size_t panel = static_cast<size_t>(begin / width) * rows + row;
            const int inside = begin % width;
            // Knuth's selection sampling: every set of n out of m is equally likely.
            for (int i = 0, wanted = form.m ? form.n : 1, index = 0; i < group; ++i) {
                uint8_t* byte =
                    shared ? &shared_bits[row / form.shared * bytes + begin / 16] : nullptr;
                if (shared && row % form.shared) {  // like the row above
                    if ((*byte >> begin / 2 % 8 & 1) != i) continue;
                } else if (random.between(1, group - i) > wanted) {
                    continue;
                }
                if (shared) *byte |= static_cast<uint8_t>(i << begin / 2 % 8);
                --wanted;
                double value = scale * random.normal();
                if (random.chance(0.01)) value *= 1e-5;  // subnormal as fp16
                value = form.half ? from_half(to_half(value)) : static_cast<float>(value);
                plain[static_cast<size_t>(row) * columns + begin + i] = value;
                const int kept = form.m ? inside / form.m * form.n + index++ : inside;
                store(panel * most + kept, value);
                if (form.layout == Layout::kPairs)
                    pair_bits[panel] |= static_cast<uint32_t>(i) << (inside / 2);
                if (form.layout == Layout::kBitmap) bitmap[panel] |= uint64_t{1} << (inside + i);
            }
        }
}

void FloatMatrix::store(size_t at, double value) {
    if (form.half)
        halves[at] = to_half(value);
    else
        singles[at] = static_cast<float>(value);
}

Matrix FloatMatrix::matrix() const {
    Matrix matrix;
    matrix.layout = form.layout;
    matrix.half = form.half;
    matrix.rows = rows;
    matrix.columns = columns;
    if (form.m) {
        matrix.panel_columns = kPanelColumns / form.m * form.m;
        matrix.kept = matrix.panel_columns / form.m * form.n;
    }
    matrix.values = form.half ? static_cast<const void*>(halves.data()) : singles.data();
    matrix.shared_rows = form.shared;
    matrix.bits =
        form.layout == Layout::kPairs ? static_cast<const void*>(pair_bits.data()) : bitmap.data();
    if (form.layout == Layout::kSharedPairs) matrix.bits = shared_bits.data();
    return matrix;
}

}  // namespace sparsebert
