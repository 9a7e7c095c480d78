// Kernels: layer_norm, sum, maximum, rotate and multiply.
#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "guarded.h"
#include "pooling.h"
#include "testing.h"

namespace sparsebert {
namespace {

struct Case {
    int features, width, lane_begin, lane_end;
    float offset, spread;
    bool in_place;
    uint64_t seed;
};

void check_norm(const Case& c) {
    Random random(c.seed);
    const size_t width = c.width;
    constexpr float kEpsilon = 1e-12f;
    Guarded<float> x(c.features * width), gamma(c.features), beta(c.features);
    for (float& value : x) value = c.offset + c.spread * random.normal();
    for (float& value : gamma) value = random.uniform(-1.5f, 1.5f);
    for (float& value : beta) value = random.normal();
    each_float_kernels([&](const Kernels& kernels) {
        std::ostringstream text;
        text << kernels.name << " layer_norm, " << c.features << " features, lanes " << c.lane_begin
             << " to " << c.lane_end << " of " << c.width << ", seed " << c.seed;
        const std::string name = text.str();
        Guarded<float> y(x.size(), std::numeric_limits<float>::quiet_NaN());
        if (c.in_place) std::copy(x.begin(), x.end(), y.begin());
        kernels.layer_norm(c.in_place ? y.data() : x.data(), y.data(), gamma.data(), beta.data(),
                           c.features, c.width, c.lane_begin, c.lane_end, kEpsilon);
        for (size_t lane = 0; lane < width; ++lane) {
            const bool mine =
                static_cast<int>(lane) >= c.lane_begin && static_cast<int>(lane) < c.lane_end;
            double mean = 0, variance = 0, largest = 0;
            for (int f = 0; f < c.features; ++f) {
                mean += static_cast<double>(x[f * width + lane]) / c.features;
                largest = std::max(largest, std::abs(static_cast<double>(x[f * width + lane])));
            }
            for (int f = 0; f < c.features; ++f) {
                const double centred = x[f * width + lane] - mean;
                variance += centred * centred / c.features;
            }
            const double factor = 1 / std::sqrt(variance + kEpsilon);
            for (int f = 0; f < c.features; ++f) {
                const float got = y[f * width + lane];
                if (!mine) {
                    if (c.in_place ? got != x[f * width + lane] : !std::isnan(got))
                        fail(name, ": feature ", f, ", lane ", lane, ": unexpected write");
                    continue;
                }
                const double centred = (x[f * width + lane] - mean) * factor;
                // The mean is a running sum.
                const double tolerance =
                    std::abs(gamma[f]) * ((4 + std::sqrt(c.features)) * 0x1p-24 * largest * factor +
                                          0x1p-20 * std::abs(centred)) +
                    0x1p-22 * std::abs(beta[f]);
                expect_near(got, centred * gamma[f] + beta[f], tolerance, name, ": feature ", f,
                            ", lane ", lane);
            }
        }
    });
}

void check_reductions(int count, uint64_t seed) {
    Random random(seed);
    Guarded<float> x(count);
    double sum = 0, magnitude = 0;
    float most = -std::numeric_limits<float>::infinity();
    for (float& value : x) {
        value = -3.0f + random.normal();
        sum += value;
        magnitude += std::abs(value);
        most = std::max(most, value);
    }
    each_float_kernels([&](const Kernels& kernels) {
        expect_near(kernels.sum(x.data(), count), sum, 0x1p-24 * (4 + std::sqrt(count)) * magnitude,
                    kernels.name, " sum of ", count);
        expect_equal(kernels.maximum(x.data(), count), most, kernels.name, " maximum of ", count);
    });
    const float nan = std::numeric_limits<float>::quiet_NaN();
    x[random.between(0, count - 1)] = nan;
    each_float_kernels([&](const Kernels& kernels) {
        if (!std::isnan(kernels.maximum(x.data(), count)))
            fail(kernels.name, " maximum of ", count, " drops a NaN");
    });
    if (!std::isnan(larger(nan, 1.0f)) || !std::isnan(larger(1.0f, nan)))
        fail("larger() drops a NaN");
}

void check_rotary(int count, uint64_t seed) {
    Random random(seed);
    Guarded<float> a(count), b(count), cosines(count), sines(count), one(count), other(count);
    for (int i = 0; i < count; ++i) {
        a[i] = random.normal();
        b[i] = random.normal();
        const float angle = random.uniform(-4.0f, 4.0f);
        cosines[i] = std::cos(angle);
        sines[i] = std::sin(angle);
    }
    const auto check_rotate = [&](const auto& kernels) {
        std::copy(a.begin(), a.end(), one.begin());
        std::copy(b.begin(), b.end(), other.begin());
        kernels.rotate(one.data(), other.data(), cosines.data(), sines.data(), count);
        for (int i = 0; i < count; ++i) {
            const double x = a[i], y = b[i], tolerance = 0x1p-22 * (std::abs(x) + std::abs(y));
            expect_near(one[i], x * cosines[i] - y * sines[i], tolerance, kernels.name,
                        " rotate of ", count, ", index ", i);
            expect_near(other[i], x * sines[i] + y * cosines[i], tolerance, kernels.name,
                        " rotate of ", count, ", other at index ", i);
        }
    };
    each_int8_kernels(check_rotate);
    each_float_kernels([&](const Kernels& kernels) {
        check_rotate(kernels);
        std::copy(a.begin(), a.end(), one.begin());
        kernels.multiply(one.data(), b.data(), count);
        for (int i = 0; i < count; ++i)
            expect_equal(one[i], a[i] * b[i], kernels.name, " multiply of ", count, ", index ", i);
    });
}

void examples() {
    uint64_t seed = 0;
    for (const int features : {1, 5, 12, 36, 52, 100, 130, 768, 3072})
        for (const int width : {16, 48, 128}) {
            const bool in_place = ++seed % 2;
            check_norm({features, width, 0, width, 0.0f, 1.0f, in_place, seed});
            check_norm({features, width, 0, width, 100.0f, 0.1f, in_place, seed});
            check_norm({features, width, 16 * (width > 16), width, -3.0f, 0.0f, in_place, seed});
        }
    for (const int count : {1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 65, 97, 768})
        check_reductions(count, ++seed), check_rotary(count, seed);
}

void random_case(Random& random) {
    const uint64_t seed = random.word();
    const int width = 16 * random.between(1, 8), begin = 16 * random.between(0, width / 16 - 1);
    const int end = 16 * random.between(begin / 16 + 1, width / 16);
    check_norm({random.between(1, 300), width, begin, end, random.pick({0.0f, 100.0f}),
                random.pick({1.0f, 1e-3f, 1e3f}), random.chance(0.5), seed});
    check_reductions(random.between(1, 200), seed);
    check_rotary(random.between(1, 200), seed);
}

}  // namespace

const KernelTest kRowsTest = {"rows", examples, random_case};

}  // namespace sparsebert
