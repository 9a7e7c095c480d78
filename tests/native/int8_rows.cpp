// Int8Kernels: activate, gate, norm, split_heads, add_scaled and dot.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "activations.h"
#include "guarded.h"
#include "testing.h"

namespace sparsebert {
namespace {

// Rows as a network may have them, and rows that stress the arithmetic.
enum class Kind {
    kNormal,
    kOffset,    // far from 0, with comparatively small differences
    kPositive,  // range without 0
    kNegative,
    kConstant,
    kZero,
    kOneSpike,
    kHuge,
    kTiny,      // treated as 0
    kSubnormal  // even their inverses are infinite
};
constexpr Kind kKinds[] = {Kind::kNormal,   Kind::kOffset,   Kind::kPositive, Kind::kNegative,
                           Kind::kConstant, Kind::kZero,     Kind::kOneSpike, Kind::kHuge,
                           Kind::kTiny,     Kind::kSubnormal};

constexpr Activation kActivations[] = {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                                       Activation::kTanh, Activation::kRelu, Activation::kSilu};

float draw(Kind kind, int i, Random& random) {
    const float x = random.normal();
    switch (kind) {
        case Kind::kNormal:
            return x;
        case Kind::kOffset:
            return 100.0f + 0.1f * x;
        case Kind::kPositive:
            return 0.1f + std::abs(x);
        case Kind::kNegative:
            return -0.1f - std::abs(x);
        case Kind::kConstant:
            return -2.6f;
        case Kind::kZero:
            return i % 2 ? 0.0f : -0.0f;
        case Kind::kOneSpike:
            return i ? 1e-3f * x : 500.0f;
        case Kind::kHuge:
            return 1e30f * x;
        case Kind::kTiny:
            return 1e-33f * x;
        default:
            return 1e-41f * x;
    }
}

std::string named(const Int8Kernels& kernels, const char* what, int size, Kind kind) {
    return std::string(kernels.name) + " " + what + ", " + std::to_string(size) +
           " features, kind " + std::to_string(static_cast<int>(kind));
}

float inverse_of(float scale) { return 1.0f / std::max(scale, 1e-30f); }

// Rows of quantised bytes, of which all but the first are written.
struct Out {
    Out(int features, int written)
        : stride(int8_stride(features)),
          values(written * stride + round_up(features, 16), 77),
          scales(1 + written, -1.0f),
          zero_points(1 + written, -1) {}
    Int8Rows rows() const { return {values.data(), stride, scales.data(), zero_points.data()}; }

    // Expects row `row`, 1 or higher, to be what the formula gives.
    void expect(const std::string& name, const float* x, int features, int row) const {
        float low = 0.0f, high = 0.0f;
        for (int f = 0; f < features; ++f) {
            low = std::min(low, x[f]);
            high = std::max(high, x[f]);
        }
        const float scale = (high - low) / 255.0f, inverse = inverse_of(scale);
        const float zero = std::nearbyint(-low * inverse);
        expect_equal(scales[row], scale, name, ": scale");
        expect_equal(zero_points[row], static_cast<int32_t>(zero), name, ": zero");
        for (int f = 0; f < features; ++f) {
            const float value = std::nearbyint(x[f] * inverse) + zero;
            const int want = static_cast<int>(std::min(std::max(value, 0.0f), 255.0f));
            const int index = f / 8 * 8 + f % 2 * 4 + f % 8 / 2;
            expect_equal(int{values[row * stride + index]}, want, name, ": feature ", f);
        }
        for (size_t i = 0; i < stride; ++i)
            expect_equal(int{values[i]}, 77, name, ": byte of another row ", i);
        expect_equal(scales[0], -1.0f, name, ": another row's scale");
        expect_equal(zero_points[0], -1, name, ": another row's zero");
    }

    size_t stride;
    Guarded<uint8_t> values;
    Guarded<float> scales;
    Guarded<int32_t> zero_points;
};

// Fewer rows than kernels take together, as many, and more.
int some_rows(uint64_t seed) { return 1 + static_cast<int>(seed % (2 * kRowsTogether)); }

// "gelu" is a polynomial with an error of 2e-4; the others are accurate to about rounding.
double activation_error(double x, double y, Activation activation) {
    if (activation == Activation::kGelu) return 2e-4 + 2e-7 * std::abs(x);
    return activation == Activation::kTanh || activation == Activation::kGeluTanh ||
                   activation == Activation::kSilu
               ? 1e-6 * (1 + std::abs(y))
               : 0;
}

void check_activate(int features, Kind kind, Activation activation, bool quantised, uint64_t seed) {
    Random random(seed);
    const int padded = round_up(features, 16), count = some_rows(seed);
    Guarded<float> x(count * padded);
    for (int i = 0; i < count * padded; ++i)
        if (i % padded < features) x[i] = draw(kind, i % padded, random);
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const std::string name = named(kernels, "activate", features, kind) + ", activation " +
                                 std::to_string(static_cast<int>(activation));
        Guarded<float> y(x.size());
        std::copy(x.begin(), x.end(), y.begin());
        const Out out(features, count);
        const Int8Rows rows = out.rows();
        const FloatRows ys{y.data(), static_cast<size_t>(padded), count};
        kernels.activate(ys, features, activation, quantised ? &rows : nullptr, 1);
        for (int i = 0; i < count * padded; ++i) {
            const bool padding = i % padded >= features;
            const double want = padding ? 0 : activated(x[i], activation);
            const double error = padding ? 0 : activation_error(x[i], want, activation);
            expect_near(y[i], want, error, name, ": number ", i);
        }
        for (int row = 0; quantised && row < count; ++row)
            out.expect(name + ", quantised", ys.row(row), features, 1 + row);
    });
}

// A row of x has `features` numbers and, right after them or at the next whole tile, as many
// factors, then whatever a tile of weights left.
void check_gate(int features, Kind kind, Activation activation, bool quantised, uint64_t seed) {
    Random random(seed);
    const int count = some_rows(seed);
    const size_t second = seed / 16 % 2 ? features : round_up(features, 16);
    const size_t stride = round_up(static_cast<int>(second) + features, 16);
    Guarded<float> x(count * stride);
    for (size_t i = 0; i < x.size(); ++i)
        x[i] = i % stride < static_cast<size_t>(features)
                   ? draw(kind, static_cast<int>(i % stride), random)
                   : random.normal();
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const std::string name = named(kernels, "gate", features, kind) + ", activation " +
                                 std::to_string(static_cast<int>(activation));
        Guarded<float> y(x.size());
        std::copy(x.begin(), x.end(), y.begin());
        const Out out(features, count);
        const Int8Rows rows = out.rows();
        const FloatRows xs{x.data(), stride, count}, ys{y.data(), stride, count};
        kernels.gate(ys, second, features, activation, quantised ? &rows : nullptr, 1);
        for (int row = 0; row < count; ++row) {
            const float *values = xs.row(row), *got = ys.row(row);
            for (int f = 0; f < features; ++f) {
                const double left = activated(values[f], activation), factor = values[second + f];
                const double error =
                    activation_error(values[f], left, activation) * std::abs(factor) +
                    0x1p-22 * std::abs(left * factor) + 1e-37;
                expect_near(got[f], left * factor, error, name, ": row ", row, ", feature ", f);
            }
            if (quantised) out.expect(name + ", quantised", got, features, 1 + row);
        }
    });
}

void check_norm(int features, Kind kind, float epsilon, bool quantised, uint64_t seed) {
    Random random(seed);
    const int padded = round_up(features, 16), count = some_rows(seed);
    Guarded<float> x(count * padded), gamma(padded), beta(padded);
    for (int f = 0; f < features; ++f) {
        gamma[f] = random.uniform(-1.5f, 1.5f);
        beta[f] = random.normal();
    }
    for (int i = 0; i < count * padded; ++i)
        if (i % padded < features) x[i] = draw(kind, i % padded, random);
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const std::string name = named(kernels, "norm", features, kind);
        Guarded<float> y(x.size());
        std::copy(x.begin(), x.end(), y.begin());
        const Out out(features, count);
        const Int8Rows rows = out.rows();
        const FloatRows ys{y.data(), static_cast<size_t>(padded), count};
        kernels.norm(ys, {gamma.data(), beta.data(), features, epsilon},
                     quantised ? &rows : nullptr, 1);
        for (int row = 0; row < count; ++row) {
            const float *values = x.data() + row * padded, *got = ys.row(row);
            double mean = 0, variance = 0, largest = 0;
            for (int f = 0; f < features; ++f) {
                mean += static_cast<double>(values[f]) / features;
                largest = std::max(largest, std::abs(static_cast<double>(values[f])));
            }
            for (int f = 0; f < features; ++f)
                variance += (values[f] - mean) * (values[f] - mean) / features;
            const double factor = 1 / std::sqrt(variance + epsilon);
            for (int f = 0; f < features; ++f) {
                const double centred = (values[f] - mean) * factor;
                const double want = centred * gamma[f] + beta[f];
                // Each step of a sum rounds relative to the sum so far: the mean's relative to the
                // largest number, the variance's in the lane of a number that dominates all others.
                const double tolerance = std::abs(gamma[f]) * 0x1p-24 *
                                             ((3 + features / 8) * largest * factor +
                                              (16 + features / 8) * std::abs(centred)) +
                                         0x1p-22 * std::abs(beta[f]);
                expect_near(got[f], want, tolerance, name, ": row ", row, ", feature ", f);
            }
            for (int f = features; f < padded; ++f) expect_equal(got[f], 0.0f, name, ": padding");
            if (quantised) out.expect(name + ", quantised", got, features, 1 + row);
        }
    });
}

void check_split_heads(int count, int size, Kind kind, uint64_t seed) {
    Random random(seed);
    const size_t stride = count * size + random.between(0, 20), token = 2;
    Guarded<float> projections(2 * stride + count * size);
    for (size_t i = 0; i < projections.size(); ++i)
        projections[i] = draw(kind, static_cast<int>(i), random);
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const std::string name = named(kernels, "split_heads", size, kind);
        Int8Heads heads{nullptr, nullptr, count, size};
        const size_t depth = round_up(size, 16);
        const Guarded<uint8_t> values((token + 1) * 3 * count * depth, 77);
        const Guarded<float> scales((token + 1) * 3 * count, -1.0f);
        heads.values = values.data();
        heads.scales = scales.data();
        kernels.split_heads(projections.data(), stride, heads, token);
        for (size_t i = 0; i < token * 3 * count; ++i) {
            expect_equal(scales[i], -1.0f, name, ": another token's scale");
            for (size_t d = 0; d < depth; ++d)
                expect_equal(int{values[i * depth + d]}, 77, name, ": another token's byte");
        }
        for (int part = 0; part < 3; ++part)
            for (int head = 0; head < count; ++head) {
                const float* x = projections.data() + part * stride + head * size;
                float most = 0.0f;
                for (int d = 0; d < size; ++d) most = std::max(most, std::abs(x[d]));
                const float scale = most / 127.0f, inverse = inverse_of(scale);
                const size_t index = (token * 3 + part) * count + head;
                expect_equal(scales[index], scale, name, ": scale of part ", part, ", head ", head);
                for (size_t d = 0; d < depth; ++d) {
                    const float value =
                        d < static_cast<size_t>(size) ? std::nearbyint(x[d] * inverse) : 0.0f;
                    const int offset = part == 0 ? 128 : 0;
                    const uint8_t want = static_cast<uint8_t>(static_cast<int>(value) + offset);
                    expect_equal(int{values[index * depth + d]}, int{want}, name, ": part ", part,
                                 ", head ", head, ", byte ", d);
                }
            }
    });
}

void check_rows_of_floats(int count, Kind kind, uint64_t seed) {
    Random random(seed);
    Guarded<int8_t> row(count);
    Guarded<float> a(count), b(count), y(count);
    double product = 0, magnitude = 0;
    const float scale = random.uniform(-0.1f, 0.1f);
    for (int i = 0; i < count; ++i) {
        row[i] = static_cast<int8_t>(random.between(-128, 127));
        a[i] = draw(kind, i, random);
        b[i] = random.normal();
        product += static_cast<double>(a[i]) * b[i];
        magnitude += std::abs(static_cast<double>(a[i]) * b[i]);
    }
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const float dot = kernels.dot(a.data(), b.data(), count);
        expect_near(dot, product, 0x1p-24 * (8 + std::sqrt(count)) * magnitude + 1e-44 * count,
                    named(kernels, "dot", count, kind));
        std::copy(b.begin(), b.end(), y.begin());
        kernels.add_scaled(row.data(), scale, count, y.data());
        for (int i = 0; i < count; ++i) {
            const double added = static_cast<double>(scale) * row[i];
            expect_near(y[i], b[i] + added, 0x1p-23 * (std::abs(b[i]) + std::abs(added)),
                        kernels.name, " add_scaled, index ", i);
        }
    });
}

// All sets round a product and a sum at once, also half way between two floats and among subnormal
// numbers, where rounding twice would show. The second of two sums in one lane is x y + c.
void check_rounding(uint64_t seed) {
    Random random(seed);
    const auto near = [&](float x) {
        return x + x * static_cast<float>(random.between(-4, 4)) * 0x1p-20f;
    };
    for (int i = 0; i < 64; ++i) {
        // x y is near half a unit in the last place of c, or more.
        const int exponent = random.pick({0, 0, 20, -110, -126, -130, -140});
        const int half_unit = std::max(exponent - 24, -150) + random.pick({0, 0, 0, 1, 8, 24});
        const float c = std::ldexp(near(1.0f), exponent), x = std::ldexp(near(1.0f), -60);
        const float y = std::ldexp(near(random.pick({1.0f, -1.0f, 3.0f})), half_unit + 60);
        Guarded<float> a(32), b(32);
        std::fill(a.begin(), a.end(), 0.0f);
        std::fill(b.begin(), b.end(), 1.0f);
        const int lane = random.between(0, 15);
        a[lane] = c, a[16 + lane] = x, b[16 + lane] = y;
        each_int8_kernels([&](const Int8Kernels& kernels) {
            expect_equal(kernels.dot(a.data(), b.data(), 32), std::fma(x, y, c), kernels.name,
                         " rounds ", x, " x ", y, " + ", c, ", seed ", seed);
        });
    }
}

// A file's weights may be arbitrarily large, and lead to values that are not finite. The result is
// lost, and a scale that is not finite tells so, wherever in the row the value is; a zero point
// must stay in range, or the sums that start with it would overflow.
void check_not_finite(int features, uint64_t seed) {
    Random random(seed);
    const int padded = round_up(features, 16);
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const float odd = random.pick({NAN, kInfinity, -kInfinity, 3e38f, -3e38f});
    Guarded<float> gamma(padded), beta(padded), x(2 * padded);
    for (float& value : gamma) value = random.normal();
    const int index = random.between(0, features - 1);
    const bool all = random.chance(0.5);
    const auto fill = [&](Guarded<float>& values) {
        for (int f = 0; f < features; ++f) values[f] = all || f == index ? odd : random.normal();
    };
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const std::string name = named(kernels, "not finite", features, Kind::kHuge);
        const Out out(features, 1);
        const Int8Rows rows = out.rows();
        const FloatRows row{x.data(), x.size(), 1};
        const auto expect_lost = [&](const char* what, float scale) {
            if (std::isnan(odd) && std::isfinite(scale))
                fail(name, ", ", what, ": scale ", scale, " with a NaN at index ", index);
        };
        const auto expect_zero = [&](const char* what) {
            if (out.zero_points[1] < 0 || out.zero_points[1] > 255)
                fail(name, ", ", what, ": zero point ", out.zero_points[1], " of ", odd);
            expect_lost(what, out.scales[1]);
        };
        for (const Activation activation : kActivations) {
            fill(x);
            kernels.activate(row, features, activation, &rows, 1);
            expect_zero("activate");
            fill(x);
            std::fill(x.begin() + features, x.end(), 1.0f);
            kernels.gate(row, features, features, activation, &rows, 1);
            expect_zero("gate");
        }
        fill(x);
        kernels.norm(row, {gamma.data(), beta.data(), features, 1e-12f}, &rows, 1);
        expect_zero("norm");
        if (std::isfinite(odd)) {  // as a model's factors are
            fill(gamma);
            for (float& value : x) value = random.normal();
            kernels.norm(row, {gamma.data(), beta.data(), features, 1e-12f}, &rows, 1);
            expect_zero("norm's factors");
        }

        const Guarded<uint8_t> values(3 * padded);
        const Guarded<float> scales(3);
        Guarded<float> projections(3 * features);
        for (int part = 0; part < 3; ++part)
            for (int f = 0; f < features; ++f)
                projections[part * features + f] = all || f == index ? odd : random.normal();
        kernels.split_heads(projections.data(), features,
                            {values.data(), scales.data(), 1, features}, 0);
        for (int part = 0; part < 3; ++part) expect_lost("split_heads", scales[part]);
    });
}

void examples() {
    uint64_t seed = 0;
    for (int i = 0; i < 50; ++i) check_rounding(++seed);
    std::vector<int> sizes = kSizes;
    for (const int size : {15, 17, 31, 33, 768, 3072}) sizes.push_back(size);
    for (const int size : sizes)
        for (const Kind kind : kKinds) {
            for (const Activation activation : kActivations)
                if (kind != Kind::kHuge || activation != Activation::kGeluTanh)  // which cubes
                {
                    check_activate(size, kind, activation, size % 2, ++seed);
                    check_gate(size, kind, activation, size % 3, seed);
                }
            if (kind != Kind::kHuge)  // the squares are infinite
                for (const bool quantised : {false, true})
                    check_norm(size, kind, quantised ? 1e-12f : 1e-5f, quantised, ++seed);
            check_rows_of_floats(size, kind, ++seed);
            check_not_finite(size, ++seed);
        }
    for (const int size : kHeadSizes)
        for (const int heads : {1, 3, 12})
            for (const Kind kind : kKinds) check_split_heads(heads, size, kind, ++seed);
}

void random_case(Random& random) {
    const uint64_t seed = random.word();
    const Kind kind = kKinds[random.word() % std::size(kKinds)];
    const int size = random.between(1, random.chance(0.2) ? 4096 : 200);
    const Activation activation = kActivations[random.word() % std::size(kActivations)];
    if (kind != Kind::kHuge || activation != Activation::kGeluTanh) {
        check_activate(size, kind, activation, true, seed);
        check_gate(size, kind, activation, true, seed);
    }
    if (kind != Kind::kHuge) check_norm(size, kind, random.pick({1e-12f, 1e-5f}), true, seed);
    check_split_heads(random.between(1, 16), random.between(1, 130), kind, seed);
    check_rows_of_floats(size, kind, seed);
    check_rounding(seed);
    check_not_finite(size, seed);
}

}  // namespace

const KernelTest kInt8RowsTest = {"int8-rows", examples, random_case};

}  // namespace sparsebert
