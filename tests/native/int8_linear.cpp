// Int8Kernels: linear, also through shared_rows.h, and row_sums.
#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "int8_matrix.h"
#include "shared_rows.h"

namespace sparsebert {
namespace {

enum class Residual { kNone, kApart, kInPlace };

struct Case {
    Int8Form form;
    int rows, columns, tokens;
    Contents contents;
    bool exact;  // scales 1 and no bias: every result is the float nearest to an integer
    Residual residual;
    int first_tile, end_tile;
    int gap;  // floats between rows of y, in tiles
    uint64_t seed;

    std::string name(const Int8Kernels& kernels) const {
        std::ostringstream text;
        text << kernels.name << " int8 linear " << form.name() << " " << rows << " x " << columns
             << ", " << tokens << " tokens, contents " << static_cast<int>(contents) << ", exact "
             << exact << ", residual " << static_cast<int>(residual) << ", tiles " << first_tile
             << " to " << end_tile << ", seed " << seed;
        return text.str();
    }
};

// The index of a token's feature as the kernels store it: in each eight, first the even ones, then
// the odd.
int index(int feature) { return feature / 8 * 8 + feature % 2 * 4 + feature % 8 / 2; }

struct Activations {
    Activations(const Case& c, Random& random)
        : stride(int8_stride(c.columns)),
          // The last row ends with its last group.
          values((c.tokens - 1) * stride + round_up(c.columns, kGroupInputs)),
          scales(c.tokens),
          zero_points(c.tokens) {
        for (uint8_t& value : values) value = draw(c, random);
        for (int t = 0; t < c.tokens; ++t) {
            scales[t] = c.exact ? 1.0f : random.uniform(0.001f, 0.1f);
            zero_points[t] = c.contents == Contents::kExtreme ? random.pick({0, 255, 128})
                                                              : random.between(0, 255);
        }
    }
    static uint8_t draw(const Case& c, Random& random) {
        if (c.contents == Contents::kExtreme || c.contents == Contents::kHalf)
            return static_cast<uint8_t>(random.pick({255, 255, 255, 0}));
        if (c.contents == Contents::kSparse && random.chance(0.8)) return 0;
        return static_cast<uint8_t>(random.between(0, 255));
    }
    int value(int token, int feature) const { return values[token * stride + index(feature)]; }
    Int8Rows rows() const { return {values.data(), stride, scales.data(), zero_points.data()}; }

    size_t stride;
    Guarded<uint8_t> values;
    Guarded<float> scales;
    Guarded<int32_t> zero_points;
};

void check(const Case& c) {
    Random random(c.seed);
    Int8Matrix matrix(c.form, c.rows, c.columns, c.contents, random);
    for (int row = 0; row < c.rows; ++row) {
        matrix.scales[row] = c.exact ? 1.0f : random.uniform(0.0f, 0.05f);
        matrix.bias[row] = c.exact ? 0.0f : random.normal();
    }
    const Activations x(c, random);
    const Int8Weight weight = matrix.weight();

    // Exact sums, from the definition.
    const int first_row = c.first_tile * kTileRows;
    const int end_row = std::min(c.rows, c.end_tile * kTileRows);
    const size_t width = static_cast<size_t>(c.end_tile - c.first_tile) * kTileRows;
    const size_t stride = width + c.gap * kTileRows, floats = (c.tokens - 1) * stride + width;
    std::vector<int64_t> sums(c.tokens * width);
    for (int t = 0; t < c.tokens; ++t)
        for (int row = first_row; row < end_row; ++row) {
            int64_t sum = 0;
            for (int k = 0; k < c.columns; ++k)
                sum +=
                    static_cast<int64_t>(x.value(t, k) - x.zero_points[t]) * matrix.value(row, k);
            sums[t * width + row - first_row] = sum;
        }
    Guarded<float> residual(floats);
    for (int t = 0; t < c.tokens; ++t)
        for (int i = 0; i < end_row - first_row; ++i)
            residual[t * stride + i] =
                c.exact ? static_cast<float>(random.between(-1000, 1000)) : random.normal();

    const float nobody = std::numeric_limits<float>::quiet_NaN();
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const std::string name = c.name(kernels);
        const size_t size = weight.layout == Int8Layout::kSharedPairs
                                ? shared_scratch_bytes(c.columns)
                                : int8_linear_scratch(c.columns);
        Guarded<int8_t> scratch(size, 99);
        Guarded<float> y(floats, nobody);
        if (c.residual == Residual::kInPlace)
            std::copy(residual.begin(), residual.end(), y.begin());
        const float* added = c.residual == Residual::kNone    ? nullptr
                             : c.residual == Residual::kApart ? residual.data()
                                                              : y.data();
        run_linear(
            kernels,
            {&weight, x.rows(), c.tokens, added, y.data(), stride, scratch.data(), first_row},
            c.first_tile, c.end_tile);
        for (int t = 0; t < c.tokens; ++t)
            for (size_t i = 0; i < std::min(stride, floats - t * stride); ++i) {
                const float got = y[t * stride + i];
                const bool written = i < width;
                const bool real = static_cast<int>(i) < end_row - first_row;
                if (!written) {
                    const bool as_before = c.residual == Residual::kInPlace
                                               ? got == residual[t * stride + i]
                                               : std::isnan(got);
                    if (!as_before)
                        fail(name, ": token ", t, ", row ", first_row + i,
                             ": write outside these tiles");
                    continue;
                }
                if (!real) {  // later steps rely on zeros there
                    if (got != 0.0f)
                        fail(name, ": token ", t, ", row ", first_row + i, ": padding is ", got,
                             ", not 0");
                    continue;
                }
                const float sum = static_cast<float>(sums[t * width + i]);
                const float more = added ? residual[t * stride + i] : 0.0f;
                if (c.exact) {
                    if (got != sum + more)
                        fail(name, ": token ", t, ", row ", first_row + i, ": ", got, ", not ",
                             sum + more);
                    continue;
                }
                const int row = first_row + static_cast<int>(i);
                const double product = static_cast<double>(x.scales[t]) * matrix.scales[row] * sum;
                const double want = product + matrix.bias[row] + more;
                const double tolerance =
                    0x1p-22 * (std::abs(product) + std::abs(matrix.bias[row]) + std::abs(more));
                if (!(std::abs(got - want) <= tolerance))
                    fail(name, ": token ", t, ", row ", first_row + i, ": ", got, ", not ", want,
                         " within ", tolerance);
            }
    });
}

void check_row_sums(const Int8Form& form, int rows, int columns, Contents contents, uint64_t seed) {
    Random random(seed);
    const Int8Matrix matrix(form, rows, columns, contents, random);
    Int8Weight weight = matrix.weight();
    if (weight.layout == Int8Layout::kSharedPairs) weight = kept_inputs(weight);
    each_int8_kernels([&](const Int8Kernels& kernels) {
        Guarded<int8_t> scratch(int8_expansion(columns), 99);
        Guarded<int32_t> out(matrix.sums.size(), -1);
        kernels.row_sums(weight, out.data(), scratch.data());
        for (size_t row = 0; row < out.size(); ++row)
            expect_equal(out[row], matrix.sums[row], kernels.name, " row sums of ", form.name(),
                         ", columns ", columns, ", row ", row);
    });
}

Case drawn(const Int8Form& form, int rows, int columns, int tokens, Random& random) {
    Case c{form,
           rows,
           form.fitting(columns),
           tokens,
           Contents::kRandom,
           false,
           Residual::kNone,
           0,
           (rows + kTileRows - 1) / kTileRows,
           0,
           random.word()};
    c.contents =
        random.pick({Contents::kRandom, Contents::kExtreme, Contents::kSparse, Contents::kHalf});
    c.exact = random.chance(0.6);
    c.residual = random.pick({Residual::kNone, Residual::kApart, Residual::kInPlace});
    if (random.chance(0.3)) {
        c.first_tile = random.between(0, c.end_tile - 1);
        c.end_tile = random.between(c.first_tile + 1, c.end_tile);
    }
    c.gap = random.between(0, 2);
    return c;
}

void examples() {
    Random random(1);
    size_t turn = 0;
    for (const Int8Form& form : kInt8Forms) {
        for (const int rows : kSizes)
            for (const int columns : kSizes) {
                check(drawn(form, rows, columns, kTokens[turn++ % kTokens.size()], random));
                check_row_sums(form, rows, form.fitting(columns), Contents::kRandom, turn);
            }
        // Every number of tokens, with a number of tiles that is no multiple of any set's block.
        for (const int tokens : kTokens) check(drawn(form, 100, 52, tokens, random));
        check(drawn(form, 768, 768, 17, random));
        check(drawn(form, 3072, 130, 7, random));
        check(drawn(form, 52, 3072, 33, random));
        // The largest possible products, whose sum of two does not fit 16 bits, and the largest of
        // which it does.
        for (const Contents contents : {Contents::kExtreme, Contents::kHalf})
            for (const int columns : {8, 100, 3072}) {
                Case c = drawn(form, 33, columns, contents == Contents::kHalf ? 41 : 9, random);
                c.contents = contents;
                c.exact = true;
                check(c);
                check_row_sums(form, 33, form.fitting(columns), contents, columns);
            }
    }
}

void random_case(Random& random) {
    const uint64_t seed = random.word();
    const Int8Form& form = kInt8Forms[random.word() % kInt8Forms.size()];
    const bool wide = random.chance(0.1);
    const int rows = random.between(1, wide ? 400 : 160), columns = random.between(1, 300);
    check(drawn(form, rows, wide ? columns * 10 : columns, random.between(1, 100), random));
    check_row_sums(form, rows, form.fitting(columns), Contents::kRandom, seed);
}

}  // namespace

const KernelTest kInt8LinearTest = {"int8-linear", examples, random_case};

}  // namespace sparsebert
