// Int8Kernels: attention, compared with bounds that hold whichever way a probability was rounded.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <sstream>

#include "distances.h"
#include "guarded.h"
#include "testing.h"

namespace sparsebert {
namespace {

enum class Kind {
    kPlain,
    kPeaked,       // one key gets all the probability
    kFlat,         // queries of zeros
    kUneven,       // values of very different scales, some zero
    kVeryNegative  // all scores equal, far below zero
};
constexpr Kind kKinds[] = {Kind::kPlain, Kind::kPeaked, Kind::kFlat, Kind::kUneven,
                           Kind::kVeryNegative};

struct Case {
    int heads, head_size, tokens;
    Kind kind;
    uint64_t seed;
    bool biased = false;
    int window = -1;
    int unseen = 0;  // how many of the last tokens are no keys
    bool disentangled = false;
    int first = 0;  // number of queries; 0: all

    int keys() const { return tokens - unseen; }
    int queries() const { return first ? first : tokens; }
    int terms() const { return disentangled ? 3 : 1; }

    std::string name() const {
        std::ostringstream text;
        text << " int8 attention, " << keys() << " keys of " << tokens << " tokens, " << heads
             << " heads of size " << head_size << ", kind " << static_cast<int>(kind) << ", window "
             << window << ", disentangled " << disentangled << ", " << queries()
             << " queries, seed " << seed;
        return text.str();
    }
};

struct Heads {
    Heads(const Case& c, Random& random)
        : heads(c.heads),
          depth(round_up(c.head_size, 16)),
          values(static_cast<size_t>(c.tokens) * 3 * c.heads * depth),
          scales(static_cast<size_t>(c.tokens) * 3 * c.heads) {
        for (int token = 0; token < c.tokens; ++token)
            for (int part = 0; part < 3; ++part)
                for (int head = 0; head < heads; ++head) fill(c, token, part, head, random);
    }
    void fill(const Case& c, int token, int part, int head, Random& random) {
        const size_t at = index(token, part, head);
        const bool zero = (part == 0 && c.kind == Kind::kFlat) ||
                          (part == 2 && c.kind == Kind::kUneven && random.chance(0.2));
        if (c.kind == Kind::kVeryNegative) {
            scales[at] = part == 2 ? 0.01f : 1e5f;
            for (int d = 0; d < c.head_size; ++d)
                values[at * depth + d] = static_cast<uint8_t>(part == 2 ? random.between(-127, 127)
                                                              : part == 1 ? 1
                                                                          : 128 - 1);
            return;
        }
        scales[at] = zero ? 0.0f : random.uniform(0.005f, 0.02f);
        if (c.kind == Kind::kPeaked && part == 1) scales[at] *= 30.0f;
        if (c.kind == Kind::kUneven && part == 2)
            scales[at] *= random.pick({1e-14f, 1e-9f, 1e-3f, 1.0f, 1e4f});
        const int offset = part == 0 ? 128 : 0;
        for (int d = 0; d < depth; ++d) {
            const int value = d < c.head_size && !zero ? random.between(-127, 127) : 0;
            values[at * depth + d] = static_cast<uint8_t>(value + offset);
        }
    }
    size_t index(int token, int part, int head) const { return (token * 3 + part) * heads + head; }
    int value(int token, int part, int head, int d) const {
        const int byte = values[index(token, part, head) * depth + d];
        return part == 0 ? byte - 128 : static_cast<int8_t>(byte);
    }
    double scale(int token, int part, int head) const { return scales[index(token, part, head)]; }

    int heads, depth;
    Guarded<uint8_t> values;
    Guarded<float> scales;
};

// Keys and queries of distances for disentangled attention, or none.
struct OfDistances {
    OfDistances(const Case& c, Random& random)
        : some(c.disentangled),
          reach(c.tokens),
          depth(round_up(c.head_size, 16)),
          stride(some ? 2 * reach + kTileRows : 0),
          factor(int8_score_factor(c.head_size, c.terms())),
          keys(stride * depth),
          queries(stride * depth),
          sums(stride),
          key_scales(stride),
          query_scales(stride) {
        for (size_t at = 0; at < stride; ++at) {
            const bool padding = at >= static_cast<size_t>(2 * reach);
            for (int d = 0; d < depth; ++d) {
                const bool zero = padding || d >= c.head_size;
                const int8_t key = static_cast<int8_t>(zero ? 0 : random.between(-127, 127));
                keys[index(at, d)] = key;
                queries[index(at, d)] =
                    static_cast<uint8_t>(zero ? 128 : 128 + random.between(-127, 127));
                sums[at] += key;
            }
            key_scales[at] = padding ? 0.0f : factor * random.uniform(0.005f, 0.02f);
            query_scales[at] = padding ? 0.0f : random.uniform(0.005f, 0.02f);
        }
    }
    size_t index(size_t at, int d) const { return (d / 4 * stride + at) * 4 + d % 4; }
    size_t place(int distance) const { return reach + distance; }

    Int8HeadDistances head(int terms) const {
        if (!some) return {};
        return {keys.data() + 4 * reach,
                queries.data() + 4 * reach,
                sums.data() + reach,
                key_scales.data() + reach,
                query_scales.data() + reach,
                stride,
                terms};
    }
    // The two products that the score of query i and key j has besides its content score.
    template <typename Heads>
    std::pair<double, double> scores(const Heads& heads, int head, int i, int j) const {
        if (!some) return {0, 0};
        const size_t at = place(j - i);
        int64_t by_query = 0, by_key = 0;
        for (int d = 0; d < depth; ++d) {
            by_query += heads.value(i, 0, head, d) * keys[index(at, d)];
            by_key += heads.value(j, 1, head, d) * (queries[index(at, d)] - 128);
        }
        const double over = factor * std::log(2.0);  // from powers of two
        return {heads.scale(i, 0, head) * key_scales[at] * std::log(2.0) * by_query,
                heads.scale(j, 1, head) * query_scales[at] * over * by_key};
    }

    bool some;
    int reach, depth;
    size_t stride;
    float factor;
    Guarded<int8_t> keys;
    Guarded<uint8_t> queries;
    Guarded<int32_t> sums;
    Guarded<float> key_scales, query_scales;
};

// The results that one query may have: P is the integer nearest to 255 p, with p known to a
// relative error.
struct Bounds {
    Bounds(const Case& c, const Heads& heads, const Distances& distances,
           const OfDistances& of_distances, int head, int query)
        : low(c.head_size), high(c.head_size) {
        std::vector<double> scores(c.keys()), errors(c.keys());
        double most = -std::numeric_limits<double>::infinity(), most_magnitude = 0;
        for (int j = 0; j < c.keys(); ++j) {
            int64_t sum = 0;
            for (int d = 0; d < c.head_size; ++d)
                sum += heads.value(query, 0, head, d) * heads.value(j, 1, head, d);
            const double product = heads.scale(query, 0, head) * heads.scale(j, 1, head) *
                                   static_cast<double>(sum) / std::sqrt(c.head_size * c.terms());
            const auto [by_query, by_key] = of_distances.scores(heads, head, query, j);
            // The bias is in powers of two.
            const double added = distances.at(j - query) * std::log(2.0);
            const double rest = std::log(std::max(heads.scale(j, 2, head), 1e-12)) + added;
            scores[j] = product + by_query + by_key + rest;
            errors[j] = std::abs(product) + std::abs(by_query) + std::abs(by_key) + std::abs(rest);
            // Outside the window, adding the hugely negative bias rounds coarsely, but the
            // exponential is 0.
            if (!distances.sees(j - query)) {
                errors[j] = 0;
                continue;
            }
            most = std::max(most, scores[j]);
            most_magnitude = std::max(most_magnitude, errors[j]);
        }
        double total_low = 0, total_high = 0;
        std::vector<double> sums_low(c.head_size), sums_high(c.head_size);
        for (int j = 0; j < c.keys(); ++j) {
            const double p = std::exp(scores[j] - most);
            const double error = c.kind == Kind::kVeryNegative
                                     ? 1e-5
                                     : std::expm1(1e-5 + 0x1p-22 * (errors[j] + most_magnitude));
            const double scale = std::max(heads.scale(j, 2, head), 1e-12);
            // The exponential is clamped at 2^-126.
            total_low += 255 * p * std::max(0.0, 1 - error) / scale;
            total_high += 255 * (p * (1 + error) + 0x1p-126) / scale;
            const double lowest = std::ceil(255 * p * std::max(0.0, 1 - error) - 0.5);
            const double highest = std::min(255.0, std::floor(255 * p * (1 + error) + 0.5));
            for (int d = 0; d < c.head_size; ++d) {
                const int value = heads.value(j, 2, head, d);
                sums_low[d] += value * (value > 0 ? std::max(lowest, 0.0) : highest);
                sums_high[d] += value * (value > 0 ? highest : std::max(lowest, 0.0));
            }
        }
        for (int d = 0; d < c.head_size; ++d) {
            low[d] = sums_low[d] / (sums_low[d] > 0 ? total_high : total_low);
            high[d] = sums_high[d] / (sums_high[d] > 0 ? total_low : total_high);
            low[d] -= 0x1p-20 * std::abs(low[d]);
            high[d] += 0x1p-20 * std::abs(high[d]);
        }
    }
    std::vector<double> low, high;
};

constexpr float kNobody = 77.25f;  // marks what is not this head's

// Calls visit(kernels, context) with each set's result for a head; nothing else may be written.
template <typename Visit>
void each_context(const Case& c, const Heads& heads, int head, size_t stride,
                  const Distances& distances, const OfDistances& of_distances, Visit visit) {
    const size_t floats = (c.tokens - 1) * stride + c.heads * c.head_size;
    const size_t first = static_cast<size_t>(head) * c.head_size;
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const Guarded<float> context(floats, kNobody);
        const Guarded<uint8_t> scratch(int8_attention_scratch(c.tokens, heads.depth), 99);
        kernels.attention({{heads.values.data(), heads.scales.data(), c.heads, c.head_size},
                           head,
                           c.tokens,
                           c.keys(),
                           c.queries(),
                           context.data(),
                           stride,
                           scratch.data(),
                           distances.centre(),
                           distances.computed(),
                           of_distances.head(c.terms())});
        for (size_t i = 0; i < floats; ++i)
            if ((i % stride - first >= static_cast<size_t>(c.head_size) ||
                 i / stride >= static_cast<size_t>(c.queries())) &&
                context[i] != kNobody)
                fail(kernels.name, c.name(), ", head ", head, ": query ", i / stride, ", column ",
                     i % stride, ": write outside the queries of this head");
        visit(kernels, context);
    });
}

// Results on tiles are equal to the bit, except for NaN.
void expect_same_on_tiles(const Case& c, size_t stride,
                          const std::map<std::string, std::vector<float>>& contexts) {
    for (const auto& [without, with] :
         {std::pair{"portable", "plain tiles"}, {"avx512-vnni", "avx512-amx"}}) {
        if (!contexts.count(with)) continue;
        const std::vector<float>&want = contexts.at(without), &got = contexts.at(with);
        for (size_t i = 0; i < got.size(); ++i)
            if (std::memcmp(&want[i], &got[i], sizeof(float)) &&
                !(std::isnan(want[i]) && std::isnan(got[i])))
                fail(with, c.name(), ": query ", i / stride, ", column ", i % stride, " is ",
                     got[i], ", not ", want[i], " as without tiles");
    }
}

void check(const Case& c) {
    Random random(c.seed);
    const Heads heads(c, random);
    const size_t hidden = c.heads * c.head_size, stride = hidden + random.between(0, 5);
    const int head = random.between(0, c.heads - 1);
    std::vector<Bounds> bounds;
    // Next to scores far below zero, a bias is smaller than their rounding error.
    const bool biased = c.biased && c.kind != Kind::kVeryNegative;
    const Distances distances(biased, c.window, round_up(c.tokens, 16), random);
    const OfDistances of_distances(c, random);
    for (int query = 0; query < c.queries(); ++query)
        bounds.emplace_back(c, heads, distances, of_distances, head, query);
    std::map<std::string, std::vector<float>> contexts;
    each_context(c, heads, head, stride, distances, of_distances,
                 [&](const Int8Kernels& kernels, const Guarded<float>& context) {
                     contexts[kernels.name].assign(context.begin(), context.end());
                     for (int query = 0; query < c.queries(); ++query)
                         for (int d = 0; d < c.head_size; ++d) {
                             const float got = context[query * stride + head * c.head_size + d];
                             const double low = bounds[query].low[d], high = bounds[query].high[d];
                             if (!(got >= low && got <= high))
                                 fail(kernels.name, c.name(), ", head ", head, ": query ", query,
                                      ", index ", d, ": ", got, ", not in ", low, " to ", high);
                         }
                 });
    expect_same_on_tiles(c, stride, contexts);
}

// Scales that arbitrarily large weights lead to. The result is lost and must not look valid: if a
// query, or a key or a value that it attends to, has a NaN scale, the result must be NaN too.
void check_odd_scales(const Case& c) {
    Random random(c.seed);
    Heads heads(c, random);
    const Distances distances(c.biased, c.window, round_up(c.tokens, 16), random);
    OfDistances of_distances(c, random);
    const double share = random.pick({0.01, 0.1, 1.0});
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const auto spoil = [&](Guarded<float>& scales) {
        for (float& scale : scales)
            if (random.chance(share))
                scale = random.pick({NAN, NAN, kInfinity, 3e38f, 1e-41f, 0.0f});
    };
    spoil(heads.scales);
    if (random.chance(0.5)) spoil(of_distances.key_scales);
    if (random.chance(0.5)) spoil(of_distances.query_scales);
    const size_t stride = c.heads * c.head_size;
    const int head = random.between(0, c.heads - 1);
    const auto lost = [&](int query) {
        if (std::isnan(heads.scale(query, 0, head))) return true;
        for (int j = 0; j < c.keys(); ++j) {
            if (!distances.sees(j - query)) continue;
            const size_t at = c.disentangled ? of_distances.place(j - query) : 0;
            if (std::isnan(heads.scale(j, 1, head)) || std::isnan(heads.scale(j, 2, head)) ||
                (c.disentangled && (std::isnan(of_distances.key_scales[at]) ||
                                    std::isnan(of_distances.query_scales[at]))))
                return true;
        }
        return false;
    };
    std::map<std::string, std::vector<float>> contexts;
    each_context(c, heads, head, stride, distances, of_distances,
                 [&](const Int8Kernels& kernels, const Guarded<float>& context) {
                     contexts[kernels.name].assign(context.begin(), context.end());
                     for (int query = 0; query < c.queries(); ++query)
                         for (int d = 0; lost(query) && d < c.head_size; ++d) {
                             const float got = context[query * stride + head * c.head_size + d];
                             if (std::isfinite(got))
                                 fail(kernels.name, c.name(), ", odd scales, head ", head,
                                      ": query ", query, ", index ", d, ": ", got,
                                      " computed from NaN");
                         }
                 });
    // With a window, tiles of queries read keys beyond it, though not the same ones.
    if (c.window < 0) expect_same_on_tiles(c, stride, contexts);
}

// Keys further away than the window and a tile of queries and of keys are not even read: with no
// bias to suppress it, a louder key changes nothing there.
void check_reach() {
    constexpr int kSize = 12, kTokens = 300, kWindow = 20, kLoud = 150;
    Random random(1);
    Heads heads({1, kSize, kTokens, Kind::kPlain, 1}, random);
    float& scale = heads.scales[heads.index(kLoud, 1, 0)];
    const float quiet = scale, loud = 50 * quiet;
    each_int8_kernels([&](const Int8Kernels& kernels) {
        const auto changed = [&](int window) {
            const size_t floats = static_cast<size_t>(kTokens) * kSize;
            const Guarded<float> one(floats), other(floats);
            const Guarded<uint8_t> scratch(int8_attention_scratch(kTokens, heads.depth), 99);
            for (const Guarded<float>* context : {&one, &other}) {
                scale = context == &one ? quiet : loud;
                kernels.attention({{heads.values.data(), heads.scales.data(), 1, kSize},
                                   0,
                                   kTokens,
                                   kTokens,
                                   kTokens,
                                   context->data(),
                                   kSize,
                                   scratch.data(),
                                   nullptr,
                                   window,
                                   {}});
            }
            int far = 0;
            for (size_t i = 0; i < floats; ++i)
                if (std::abs(static_cast<int>(i / kSize) - kLoud) > kWindow + kTileQueries + 16)
                    far += one[i] != other[i];
            return far;
        };
        expect_equal(changed(kWindow), 0, kernels.name, " results changed by a distant key");
        if (!changed(kEverything))
            fail(kernels.name, ": a loud key changes nothing even without a window");
    });
}

void examples() {
    check_reach();
    uint64_t seed = 0;
    for (const int head_size : kHeadSizes)
        for (const int tokens : kTokens) {
            const int heads = seed % 2 ? 3 : 1;
            check({heads, head_size, tokens, kKinds[seed % std::size(kKinds)], seed});
            ++seed;
        }
    for (const Kind kind : kKinds)
        for (const int tokens : {1, 17, 48}) check({2, 32, tokens, kind, ++seed});
    check({2, 64, 512, Kind::kPlain, ++seed});
    for (const int tokens : kTokens)
        for (const int window : {-1, 0, 1, 5, 16, 40})
            check(
                {2, 12, tokens, kKinds[++seed % std::size(kKinds)], seed, window % 2 != 0, window});
    check({2, 64, 512, Kind::kPlain, ++seed, false, 64});
    for (const Kind kind : kKinds)
        for (const int unseen : {1, 15, 16, 31})
            check({2, 32, 32, kind, ++seed, unseen == 15, -1, unseen});
    check({2, 12, 40, Kind::kPlain, ++seed, false, 20, 20});
    check({2, 64, 300, Kind::kPlain, ++seed, false, -1, 281});
    check({2, 64, 300, Kind::kPlain, ++seed, true, 127});
    for (const int first : {1, 16, 37})
        for (const int window : {-1, 5})
            check({2, 32, 100, Kind::kPlain, ++seed, window > 0, window, 0, false, first});
    check({2, 32, 100, Kind::kPlain, ++seed, false, -1, 3, true, 1});
    for (const int tokens : kTokens)
        for (const int size : {12, 32, 100}) {
            const int unseen = tokens > 8 ? static_cast<int>(++seed % 3) : 0;
            check({2, size, tokens, Kind::kPlain, ++seed, false, -1, unseen, true});
            check_odd_scales({2, size, tokens, Kind::kPlain, seed, false, -1, unseen, true});
            check_odd_scales({2, size, tokens, Kind::kUneven, seed, true, 20, unseen});
        }
}

void random_case(Random& random) {
    const uint64_t seed = random.word();
    const int tokens = random.between(1, random.chance(0.1) ? 300 : 60);
    const bool disentangled = random.chance(0.3);
    const int window = !disentangled && random.chance(0.5) ? random.between(0, 80) : -1;
    const int most = std::min(tokens - 1, window < 0 ? tokens : window);
    const int unseen = random.chance(0.3) ? random.between(0, most) : 0;
    const int heads = random.between(1, 4), head_size = random.between(1, 130);
    const Kind kind = kKinds[random.word() % std::size(kKinds)];
    const Case c{heads,        head_size,
                 tokens,       disentangled ? Kind::kPlain : kind,
                 seed,         !disentangled && random.chance(0.5),
                 window,       unseen,
                 disentangled, random.chance(0.3) ? random.between(1, tokens) : 0};
    random.chance(0.3) ? check_odd_scales(c) : check(c);
}

}  // namespace

const KernelTest kInt8AttentionTest = {"int8-attention", examples, random_case};

}  // namespace sparsebert
