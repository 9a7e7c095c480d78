// Kernels: linear, also by way of shared_rows.h, in every layout of fp32 and fp16 weights.
#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "activations.h"
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
};

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
    std::vector<double> wants(residual.size()), magnitudes(residual.size());
    for (int row = c.row_begin; row < c.row_end; ++row) {
        double* want = wants.data() + row * width;
        double* magnitude = magnitudes.data() + row * width;
        for (int k = 0; k < c.columns; ++k) {
            const double factor = matrix.value(row, k);
            for (size_t t = 0; t < width; ++t) {
                want[t] += factor * x[k * width + t];
                magnitude[t] += std::abs(factor * x[k * width + t]);
            }
        }
        for (size_t t = 0; t < width; ++t) {
            const double added = c.bias ? bias[row] : 0;
            const double more = c.residual == Residual::kNone ? 0 : residual[row * width + t];
            want[t] += added + more;
            magnitude[t] += std::abs(added) + std::abs(more);
        }
    }
    each_float_kernels([&](const Kernels& kernels) {
        std::ostringstream text;
        text << kernels.name << " linear " << c.form.name() << " " << c.rows << " x " << c.columns
             << ", width " << c.width << ", rows " << c.row_begin << " to " << c.row_end
             << ", bias " << c.bias << ", residual " << static_cast<int>(c.residual)
             << ", activation " << static_cast<int>(c.activation) << ", seed " << c.seed;
        const std::string name = text.str();
        Guarded<float> y(residual.size(), std::numeric_limits<float>::quiet_NaN());
        if (c.residual == Residual::kInPlace)
            std::copy(residual.begin(), residual.end(), y.begin());
        const float* added = c.residual == Residual::kNone    ? nullptr
                             : c.residual == Residual::kApart ? residual.data()
                                                              : y.data();
        const bool shared = weight.layout == Layout::kSharedPairs;
        Guarded<float> scratch(shared ? shared_scratch_floats(c.columns) : 0);
        run_linear(kernels,
                   {&weight, c.bias ? bias.data() : nullptr, x.data(), added, y.data(), c.width,
                    c.activation},
                   c.row_begin, c.row_end, scratch.data());
        for (size_t i = 0; i < y.size(); ++i) {
            const int row = static_cast<int>(i / width);
            if (row < c.row_begin || row >= c.row_end) {
                const bool as_before =
                    c.residual == Residual::kInPlace ? y[i] == residual[i] : std::isnan(y[i]);
                if (!as_before) fail(name, ": row ", row, ", token ", i % width, ": written");
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

int width_of(int tokens) {
    return std::min((tokens + kLaneTokens - 1) / kLaneTokens * kLaneTokens, kBlockTokens);
}

void examples() {
    Random random(2);
    size_t turn = 0;
    for (const FloatForm& form : kFloatForms) {
        for (const int rows : kSizes)
            for (const int columns : kSizes)
                check(
                    drawn(form, rows, columns, width_of(kTokens[turn++ % kTokens.size()]), random));
        for (int width = kLaneTokens; width <= kBlockTokens; width += kLaneTokens)
            check(drawn(form, 37, 200, width, random));
        check(drawn(form, 768, 768, 16, random));
        check(drawn(form, 52, 3072, 32, random));
        check(drawn(form, 3072, 100, 48, random));
        for (const Activation activation :
             {Activation::kGelu, Activation::kGeluTanh, Activation::kTanh, Activation::kRelu,
              Activation::kSilu})
            for (const Residual residual :
                 {Residual::kNone, Residual::kApart, Residual::kInPlace}) {
                Case c = drawn(form, 50, 130, 48, random);
                c.activation = activation;
                c.residual = residual;
                check(c);
            }
    }
}

void random_case(uint64_t seed) {
    Random random(seed);
    const FloatForm& form = kFloatForms[random.word() % kFloatForms.size()];
    const int columns = random.between(1, random.chance(0.1) ? 2000 : 300);
    check(drawn(form, random.between(1, 120), columns, width_of(random.between(1, kBlockTokens)),
                random));
}

}  // namespace

const KernelTest kLinearTest = {"linear", examples, random_case};

}  // namespace sparsebert
