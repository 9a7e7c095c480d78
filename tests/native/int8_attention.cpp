// Int8Kernels: attention, against bounds that hold whichever way a probability was rounded.
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
    kPeaked,       // one key takes all
    kFlat,         // queries of zeros
    kUneven,       // values of very different scales, some zero
    kVeryNegative  // every score the same, far below zero
};
constexpr Kind kKinds[] = {Kind::kPlain, Kind::kPeaked, Kind::kFlat, Kind::kUneven,
                           Kind::kVeryNegative};

struct Case {
    int heads, head_size, tokens;
    Kind kind;
    uint64_t seed;
    bool biased = false;
    int window = -1;
    int unseen = 0;  // of its last tokens: no keys

    int keys() const { return tokens - unseen; }
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

// What one query may give: P is the whole number nearest to 255 p, p known to a relative error.
struct Bounds {
    Bounds(const Case& c, const Heads& heads, const Distances& distances, int head, int query)
        : low(c.head_size), high(c.head_size) {
        std::vector<double> scores(c.keys()), errors(c.keys());
        double most = -std::numeric_limits<double>::infinity(), most_magnitude = 0;
        for (int j = 0; j < c.keys(); ++j) {
            int64_t sum = 0;
            for (int d = 0; d < c.head_size; ++d)
                sum += heads.value(query, 0, head, d) * heads.value(j, 1, head, d);
            const double product = heads.scale(query, 0, head) * heads.scale(j, 1, head) *
                                   static_cast<double>(sum) / std::sqrt(c.head_size);
            // The bias is in powers of two.
            const double added = distances.at(j - query) * std::log(2.0);
            scores[j] = product + std::log(std::max(heads.scale(j, 2, head), 1e-12)) + added;
            errors[j] = std::abs(product) + std::abs(scores[j] - product);
            // Sums with next to nothing are as rough as it is large, and its exponential is 0.
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
            // The exponential ends at 2^-126.
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

void check(const Case& c) {
    Random random(c.seed);
    const Heads heads(c, random);
    const size_t hidden = c.heads * c.head_size, stride = hidden + random.between(0, 5);
    const size_t floats = (c.tokens - 1) * stride + hidden;
    const int head = random.between(0, c.heads - 1);
    std::vector<Bounds> bounds;
    // Beside scores far below zero a bias is less than their rounding.
    const bool biased = c.biased && c.kind != Kind::kVeryNegative;
    const Distances distances(biased, c.window, round_up(c.tokens, 16), random);
    std::map<std::string, std::vector<float>> contexts;
    for (int query = 0; query < c.tokens; ++query)
        bounds.emplace_back(c, heads, distances, head, query);
    each_int8_kernels([&](const Int8Kernels& kernels) {
        std::ostringstream text;
        text << kernels.name << " int8 attention, " << c.keys() << " keys of " << c.tokens
             << " tokens, head " << head << " of " << c.heads << ", size " << c.head_size
             << ", kind " << static_cast<int>(c.kind) << ", window " << c.window << ", seed "
             << c.seed;
        const std::string name = text.str();
        const Guarded<float> context(floats, std::numeric_limits<float>::quiet_NaN());
        const Guarded<uint8_t> scratch(int8_attention_scratch(c.tokens, heads.depth), 99);
        kernels.attention({{heads.values.data(), heads.scales.data(), c.heads, c.head_size},
                           head,
                           c.tokens,
                           c.keys(),
                           context.data(),
                           stride,
                           scratch.data(),
                           distances.centre(),
                           distances.computed(),
                           {}});
        contexts[kernels.name].assign(context.begin(), context.end());
        for (size_t i = 0; i < floats; ++i) {
            const size_t query = i / stride, column = i % stride;
            const size_t d = column - head * c.head_size;
            const float got = context[i];
            if (column < static_cast<size_t>(head * c.head_size) ||
                d >= static_cast<size_t>(c.head_size)) {
                if (!std::isnan(got))
                    fail(name, ": query ", query, ", column ", column,
                         ": written, though not this head's");
            } else if (!(got >= bounds[query].low[d] && got <= bounds[query].high[d])) {
                fail(name, ": query ", query, ", index ", d, ": ", got, ", not in ",
                     bounds[query].low[d], " to ", bounds[query].high[d]);
            }
        }
    });
    // Tiles change no bit.
    for (const auto& [without, with] :
         {std::pair{"portable", "plain tiles"}, {"avx512-vnni", "avx512-amx"}}) {
        if (!contexts.count(with)) continue;
        const std::vector<float>&want = contexts[without], &got = contexts[with];
        for (size_t i = 0; i < floats; ++i)
            if (std::memcmp(&want[i], &got[i], sizeof(float)))
                fail(with, " int8 attention, ", c.tokens, " tokens, size ", c.head_size, ", kind ",
                     static_cast<int>(c.kind), ", window ", c.window, ", seed ", c.seed, ": query ",
                     i / stride, ", column ", i % stride, " is ", got[i], ", not ", want[i],
                     " as without tiles");
    }
}

// What lies further away than a window and a tile of queries and of keys is not even read: with no
// bias to hide it, a louder key changes nothing there.
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
        expect_equal(changed(kWindow), 0, kernels.name, " results that a far key changed");
        if (!changed(kEverything)) fail(kernels.name, ": a loud key shows nowhere");
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
}

void random_case(uint64_t seed) {
    Random random(seed);
    const int tokens = random.between(1, random.chance(0.1) ? 300 : 60);
    const int window = random.chance(0.5) ? random.between(0, 80) : -1;
    const int most = std::min(tokens - 1, window < 0 ? tokens : window);
    const int unseen = random.chance(0.3) ? random.between(0, most) : 0;
    check({random.between(1, 4), random.between(1, 130), tokens,
           kKinds[random.word() % std::size(kKinds)], seed, random.chance(0.5), window, unseen});
}

}  // namespace

const KernelTest kInt8AttentionTest = {"int8-attention", examples, random_case};

}  // namespace sparsebert
