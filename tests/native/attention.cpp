// Kernels: attention.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "distances.h"
#include "guarded.h"
#include "testing.h"

namespace sparsebert {
namespace {

struct Case {
    int head_size, tokens, stride;
    float sharpness;  // scales the scores
    uint64_t seed;
    bool biased = false;
    int window = -1;
    int unseen = 0;  // how many of the last tokens are no keys
    bool disentangled = false;
    int first = 0;  // number of queries, in whole vectors of lanes; 0: all

    int keys() const { return tokens - unseen; }
    int queries() const { return first ? first : stride; }
};

constexpr float kNobody = 77.25f;  // marks what must not be written

void check(const Case& c) {
    Random random(c.seed);
    const size_t count = static_cast<size_t>(c.head_size) * c.stride, stride = c.stride;
    Guarded<float> q(count), k(count), v(count);
    for (float& value : q) value = c.sharpness * random.normal();
    for (float& value : k) value = random.normal();
    for (float& value : v) value = random.normal();
    const Distances distances(c.biased, c.window, c.stride, random);
    // Keys and queries of distances, from the farthest distance on.
    const size_t reach = c.stride, distances_stride = 2 * reach + kLaneTokens;
    Guarded<float> pk(c.disentangled ? c.head_size * distances_stride : 0), pq(pk.size());
    for (float& value : pk) value = random.normal();
    for (float& value : pq) value = random.normal();
    const double scale = 1 / std::sqrt((c.disentangled ? 3.0 : 1.0) * c.head_size);
    std::vector<double> wants(count), tolerances(c.tokens);
    for (int i = 0; i < c.tokens; ++i) {
        std::vector<double> scores(c.keys());
        double most = -1e300, magnitude = 0, total = 0, largest = 0;
        for (int j = 0; j < c.keys(); ++j) {
            double sum = 0;
            for (int d = 0; d < c.head_size; ++d) {
                const double query = q[d * stride + i], key = k[d * stride + j];
                double product = query * key;
                if (c.disentangled) {
                    const size_t at = d * distances_stride + reach + i - j;
                    product += query * pk[at] + key * pq[at];
                }
                sum += product;
                magnitude = std::max(magnitude, std::abs(sum) + std::abs(product));
            }
            scores[j] = sum * scale + distances.at(i - j);
            most = std::max(most, scores[j]);
        }
        for (double& score : scores) total += score = std::exp(score - most);
        for (int d = 0; d < c.head_size; ++d)
            for (int j = 0; j < c.keys(); ++j) {
                wants[d * stride + i] += scores[j] / total * v[d * stride + j];
                largest = std::max(largest, static_cast<double>(std::abs(v[d * stride + j])));
            }
        // A score's rounding error becomes a relative error of its probability; sums of three times
        // as many products have three times the rounding error.
        const double rounding = c.disentangled ? 0x3p-22 : 0x1p-22;
        tolerances[i] = largest * (2e-6 + rounding * (1 + magnitude * scale));
    }
    each_float_kernels([&](const Kernels& kernels) {
        std::ostringstream text;
        text << kernels.name << " attention, " << c.keys() << " keys of " << c.tokens
             << " tokens, stride " << c.stride << ", head size " << c.head_size << ", window "
             << c.window << ", disentangled " << c.disentangled << ", " << c.queries()
             << " queries, seed " << c.seed;
        const std::string name = text.str();
        const Guarded<float> out(count, kNobody), scratch(attention_scratch(c.keys()));
        Attention call{q.data(),           k.data(),
                       v.data(),           out.data(),
                       scratch.data(),     c.keys(),
                       c.queries(),        c.stride,
                       c.head_size,        static_cast<float>(scale),
                       distances.centre(), distances.computed()};
        if (c.disentangled) {
            call.distance_keys = pk.data() + reach;
            call.distance_queries = pq.data() + reach;
            call.distances_stride = distances_stride;
        }
        kernels.attention(call);
        for (size_t i = 0; i < count; ++i) {
            const int token = static_cast<int>(i % stride);
            if (token >= c.queries() && out[i] != kNobody)
                fail(name, ": write past the last query, token ", token);
            if (token >= c.queries()) continue;
            if (token < c.tokens)
                expect_near(out[i], wants[i], tolerances[token], name, ": index ", i / stride,
                            ", token ", token);
            else if (!std::isfinite(out[i]))
                fail(name, ": not finite past the last token, index ", i / stride);
        }
    });
}

// Keys further away than the window and a tile of queries are not even read: a NaN key would spoil
// whatever it meets.
void check_reach() {
    constexpr int kSize = 12, kTokens = 300, kStride = 304, kWindow = 20, kSpoilt = 150;
    Random random(1);
    const size_t count = static_cast<size_t>(kSize) * kStride;
    Guarded<float> q(count), k(count), v(count);
    for (Guarded<float>* part : {&q, &k, &v})
        for (float& value : *part) value = random.normal();
    for (size_t d = 0; d < kSize; ++d)
        k[d * kStride + kSpoilt] = v[d * kStride + kSpoilt] = std::nanf("");
    const Distances distances(false, kWindow, kStride, random);
    each_float_kernels([&](const Kernels& kernels) {
        const Guarded<float> out(count), scratch(attention_scratch(kTokens));
        kernels.attention({q.data(), k.data(), v.data(), out.data(), scratch.data(), kTokens,
                           kStride, kStride, kSize, 0.3f, distances.centre(), kWindow});
        for (int i = 0; i < kTokens; ++i)
            if (std::abs(i - kSpoilt) > kWindow + 64 && !std::isfinite(out[i]))
                fail(kernels.name, " attention reads beyond its window for query ", i);
    });
}

void examples() {
    check_reach();
    uint64_t seed = 0;
    for (const int head_size : kHeadSizes)
        for (const int tokens : kTokens) {
            const int stride = (tokens + 15) / 16 * 16;
            check({head_size, tokens, stride, seed % 3 ? 1.0f : 20.0f, seed});
            ++seed;
        }
    check({32, 20, 80, 1.0f, ++seed});
    check({64, 512, 512, 1.0f, ++seed});
    for (const int tokens : kTokens)
        for (const int window : {-1, 0, 1, 5, 16, 40}) {
            const int stride = (tokens + 15) / 16 * 16;
            check({12, tokens, stride, 1.0f, ++seed, window % 2 != 0, window});
        }
    check({64, 512, 512, 1.0f, ++seed, false, 64});
    for (const int unseen : {1, 15, 16, 31})
        check({32, 32, 32, 1.0f, ++seed, unseen == 15, -1, unseen});
    check({12, 40, 48, 1.0f, ++seed, false, 20, 20});
    check({64, 300, 304, 1.0f, ++seed, true, 127});
    for (const int tokens : kTokens)
        for (const int unseen : {0, 1}) {
            const int stride = (tokens + 15) / 16 * 16;
            if (tokens > unseen) check({20, tokens, stride, 1.0f, ++seed, false, -1, unseen, true});
        }
    for (const int window : {-1, 5})
        for (const int first : {16, 48})
            check({12, 100, 112, 1.0f, ++seed, window > 0, window, 0, false, first});
    check({12, 100, 112, 1.0f, ++seed, false, -1, 3, true, 16});
}

void random_case(Random& random) {
    const uint64_t seed = random.word();
    const int tokens = random.between(1, random.chance(0.1) ? 300 : 60);
    const int stride = (tokens + 15) / 16 * 16 + random.pick({0, 0, 16, 48});
    const bool disentangled = random.chance(0.3);
    const int window = !disentangled && random.chance(0.5) ? random.between(0, 80) : -1;
    const int most = std::min(tokens - 1, window < 0 ? tokens : window);
    const int unseen = random.chance(0.3) ? random.between(0, most) : 0;
    const int head_size = random.between(1, 130);
    const int first = random.chance(0.3) ? 16 * random.between(1, stride / 16) : 0;
    check({head_size, tokens, stride, random.pick({0.0f, 1.0f, 20.0f}), seed,
           !disentangled && random.chance(0.5), window, unseen, disentangled, first});
}

}  // namespace

const KernelTest kAttentionTest = {"attention", examples, random_case};

}  // namespace sparsebert
