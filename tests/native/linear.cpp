// Linear layers through shared_rows.h, in every layout of fp32 and fp16 weights: as stored, and
// computed in bf16, for which the definition rounds weights and inputs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "activations.h"
#include "bf16/weights.h"
#include "float_matrix.h"
#include "shared_rows.h"

namespace sparsebert {
namespace {

enum class Residual { kNone, kApart, kInPlace };

struct Case {
    FloatForm form;
    int rows, columns, width;
    int row_begin, row_end;
    bool bias;
    Residual residual;
    Activation activation;
    float magnitude;  // of the inputs
    uint64_t seed;
    bool bf16 = false;
};

// Rounds to eight significant bits, ties to even.
double rounded_to_bf16(double x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(x, 8 - exponent)), exponent - 8);
}

// Calls check(kernels, products, name) with everything that computes in bf16 here.
template <typename Check>
void each_bf16(Check check) {
    ++native_calls;
    check(with_bf16(kPortableKernels, kPlainTilesBf16), Products::kBf16Tiles, "plain tiles");
    for (const std::string& name : available_instruction_sets()) {
        const InstructionSet& set = select_instruction_set(name);
        native_calls += set.bf16 ? 2 : 1;
        check(*set.kernels, Products::kRounded, set.kernels->name);
        if (set.bf16)
            check(with_bf16(*set.kernels, *set.bf16), set.bf16->products, set.bf16->instructions);
    }
}

void check(const Case& c) {
    Random random(c.seed);
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.columns));
    const FloatMatrix matrix(c.form, c.rows, c.columns, scale, random);
    const Matrix weight = matrix.matrix();
    const size_t width = c.width;
    Guarded<float> x(c.columns * width), bias(c.rows), residual(c.rows * width);
    for (float& value : x) value = c.magnitude * random.normal();
    for (float& value : bias) value = random.normal();
    for (float& value : residual) value = random.normal();
    std::vector<double> inputs(x.begin(), x.end());
    if (c.bf16)
        for (double& value : inputs) value = rounded_to_bf16(value);
    std::vector<double> wants(residual.size()), magnitudes(residual.size());
    for (int row = c.row_begin; row < c.row_end; ++row) {
        double* want = wants.data() + row * width;
        double* magnitude = magnitudes.data() + row * width;
        for (int k = 0; k < c.columns; ++k) {
            const double value = matrix.value(row, k);
            const double factor = c.bf16 ? rounded_to_bf16(value) : value;
            for (size_t t = 0; t < width; ++t) {
                const double input = inputs[k * width + t];
                want[t] += factor * input;
                magnitude[t] += std::abs(factor * input);
            }
        }
        for (size_t t = 0; t < width; ++t) {
            const double added = c.bias ? bias[row] : 0;
            const double more = c.residual == Residual::kNone ? 0 : residual[row * width + t];
            want[t] += added + more;
            magnitude[t] += std::abs(added) + std::abs(more);
        }
    }
    const auto compare = [&](const Kernels& kernels, const Matrix& given, const char* set) {
        std::ostringstream text;
        text << set << (c.bf16 ? " bf16" : "") << " linear " << c.form.name() << " " << c.rows
             << " x " << c.columns << ", width " << c.width << ", rows " << c.row_begin << " to "
             << c.row_end << ", bias " << c.bias << ", residual " << static_cast<int>(c.residual)
             << ", activation " << static_cast<int>(c.activation) << ", seed " << c.seed;
        const std::string name = text.str();
        Guarded<float> y(residual.size(), std::numeric_limits<float>::quiet_NaN());
        if (c.residual == Residual::kInPlace)
            std::copy(residual.begin(), residual.end(), y.begin());
        const float* added = c.residual == Residual::kNone    ? nullptr
                             : c.residual == Residual::kApart ? residual.data()
                                                              : y.data();
        Guarded<float> scratch(linear_scratch_floats(given, c.width),
                               std::numeric_limits<float>::quiet_NaN());
        run_linear(kernels,
                   {&given, c.bias ? bias.data() : nullptr, x.data(), added, y.data(), c.width,
                    c.activation},
                   c.row_begin, c.row_end, scratch.data());
        for (size_t i = 0; i < y.size(); ++i) {
            const int row = static_cast<int>(i / width);
            if (row < c.row_begin || row >= c.row_end) {
                const bool as_before =
                    c.residual == Residual::kInPlace ? y[i] == residual[i] : std::isnan(y[i]);
                if (!as_before)
                    fail(name, ": row ", row, ", token ", i % width, ": unexpected write");
                continue;
            }
            const double want = activated(wants[i], c.activation);
            const double rounding = 0x1p-24 * (8 + 2 * std::sqrt(c.columns)) * magnitudes[i];
            const double tolerance =
                1.2 * rounding +
                (c.activation == Activation::kNone ? 0 : 1e-6 * (1 + std::abs(want)));
            if (!(std::abs(y[i] - want) <= tolerance))
                fail(name, ": row ", row, ", token ", i % width, ": ", y[i], ", not ", want,
                     " within ", tolerance);
        }
    };
    if (!c.bf16)
        return each_float_kernels(
            [&](const Kernels& kernels) { compare(kernels, weight, kernels.name); });
    each_bf16([&](const Kernels& kernels, Products products, const char* set) {
        if (c.width > kernels.block_tokens) return;
        Bytes memory;
        compare(kernels, in_bf16(weight, products, memory), set);
    });
}

Case drawn(const FloatForm& form, int rows, int columns, int width, Random& random) {
    Case c{form,
           rows,
           form.fitting(columns),
           width,
           0,
           rows,
           random.chance(0.7),
           Residual::kNone,
           Activation::kNone,
           1.0f,
           random.word()};
    c.residual = random.pick({Residual::kNone, Residual::kApart, Residual::kInPlace});
    c.activation =
        random.pick({Activation::kNone, Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                     Activation::kTanh, Activation::kRelu, Activation::kSilu});
    c.magnitude = random.pick({1.0f, 1.0f, 100.0f, 1e-3f, 0.0f});
    if (random.chance(0.4)) {
        c.row_begin = random.between(0, rows - 1);
        c.row_end = random.between(c.row_begin + 1, rows);
    }
    return c;
}

int width_of(int tokens, int most = kBlockTokens) {
    return std::min((tokens + kLaneTokens - 1) / kLaneTokens * kLaneTokens, most);
}

void check_forms(bool bf16, Random& random) {
    size_t turn = 0;
    const auto drawn_and_checked = [&](const FloatForm& form, int rows, int columns, int width) {
        Case c = drawn(form, rows, columns, width, random);
        c.bf16 = bf16;
        check(c);
    };
    for (const FloatForm& form : kFloatForms) {
        for (const int rows : kSizes)
            for (const int columns : kSizes)
                drawn_and_checked(form, rows, columns, width_of(kTokens[turn++ % kTokens.size()]));
        for (int width = kLaneTokens; width <= kBlockTokens; width += kLaneTokens)
            drawn_and_checked(form, 37, 200, width);
        drawn_and_checked(form, 768, 768, 16);
        drawn_and_checked(form, 52, 3072, 32);
        drawn_and_checked(form, 3072, 100, 48);
        for (const Activation activation :
             {Activation::kGelu, Activation::kGeluTanh, Activation::kTanh, Activation::kRelu,
              Activation::kSilu})
            for (const Residual residual :
                 {Residual::kNone, Residual::kApart, Residual::kInPlace}) {
                Case c = drawn(form, 50, 130, 48, random);
                c.activation = activation;
                c.residual = residual;
                c.bf16 = bf16;
                check(c);
            }
    }
}

void examples() {
    Random random(2);
    check_forms(false, random);
}

void bf16_examples() {
    Random random(3);
    check_forms(true, random);
    // More outputs than pass over a block of tokens together, and more tokens than one block.
    for (const FloatForm& form : kFloatForms)
        for (const int width : {112, 208, 256}) {
            Case c = drawn(form, 300, 72, width, random);
            c.bf16 = true;
            check(c);
        }
}

Case any_case(Random& random, int most_tokens) {
    const FloatForm& form = kFloatForms[random.word() % kFloatForms.size()];
    const int columns = random.between(1, random.chance(0.1) ? 2000 : 300);
    const int rows = random.between(1, 120);
    return drawn(form, rows, columns, width_of(random.between(1, most_tokens), most_tokens),
                 random);
}

void random_case(Random& random) { check(any_case(random, kBlockTokens)); }

void random_bf16_case(Random& random) {
    Case c = any_case(random, random.chance(0.75) ? kBlockTokens : 256);
    c.bf16 = true;
    check(c);
}

}  // namespace

const KernelTest kLinearTest = {"linear", examples, random_case};
const KernelTest kBf16LinearTest = {"bf16-linear", bf16_examples, random_bf16_case};

}  // namespace sparsebert
