#include "choice.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../memory.h"
#include "../per_process.h"

namespace sparsebert {
namespace {

// The layer to measure has the shape of one of BERT-base. It is measured with the tokens of a run
// and, for tiles, with as many as fill one. With fewer tokens, part of each product is wasted and
// tiles gain nothing: with 8 they are level, with 4 they take 1.6 times as long.
constexpr int kFeatures = 768, kTokens = 64, kTokensOfTile = 16;
// Runs of each kernel, alternating; its best time counts. A few milliseconds in all.
constexpr int kRounds = 10;
// Another kernel must take less than this share of the time, so that the choice is the same from
// run to run.
constexpr double kMargin = 0.95;

struct Layer {
    explicit Layer(Int8Layout layout)
        : values(static_cast<size_t>(kFeatures) * kFeatures),
          bits(values.size() / 128),
          scales(kFeatures, 0.01f),
          sums(kFeatures),
          x(kTokens * int8_stride(kFeatures)),
          token_scales(kTokens, 0.1f),
          zero_points(kTokens),
          y(static_cast<size_t>(kTokens) * kFeatures) {
        uint64_t word = 1;
        for (uint64_t& choices : bits)  // as irregular as those of a real layer (Knuth's MMIX)
            choices = word = (word ^ word >> 29) * 6364136223846793005ull + 1442695040888963407ull;
        weight.layout = layout;
        weight.rows = weight.columns = kFeatures;
        weight.values = values.data();
        weight.bits = bits.data();
        weight.scales = weight.bias = scales.data();
        weight.sums = sums.data();
        weight.small_pairs = true;  // as `sparsebert pack` writes them, and these zeros have them
        scratch.reserve(int8_linear_scratch(kFeatures));
    }

    double milliseconds(const Int8Kernels& kernels, int tokens) {
        const Int8Rows rows = {x.data(), int8_stride(kFeatures), token_scales.data(),
                               zero_points.data()};
        const auto start = std::chrono::steady_clock::now();
        kernels.linear({&weight, rows, tokens, nullptr, y.data(), kFeatures,
                        reinterpret_cast<int8_t*>(scratch.get()), 0},
                       0, weight.tiles());
        const auto end = std::chrono::steady_clock::now();
        return std::chrono::duration<double, std::milli>(end - start).count();
    }

    // The best time of each kernel; infinite if the kernel is null.
    template <size_t Count>
    std::array<double, Count> race(const std::array<const Int8Kernels*, Count>& kernels,
                                   int tokens) {
        std::array<double, Count> best;
        best.fill(std::numeric_limits<double>::infinity());
        for (int round = 0; round < kRounds; ++round)
            for (size_t i = 0; i < Count; ++i)
                if (kernels[i]) best[i] = std::min(best[i], milliseconds(*kernels[i], tokens));
        return best;
    }

    std::vector<int8_t> values;
    std::vector<uint64_t> bits;
    std::vector<float> scales;
    std::vector<int32_t> sums;
    std::vector<uint8_t> x;
    std::vector<float> token_scales;
    std::vector<int32_t> zero_points;
    std::vector<float> y;
    Int8Weight weight;
    Bytes scratch;
};

std::string compared(double time, double other) {
    char text[60];
    std::snprintf(text, sizeof text, " (measured %.2f ms against %.2f ms)", time, other);
    return text;
}

// Besides tiles, dense weights have one kernel; 1:2 weights have blends and perhaps lookup tables.
Int8Choice measure(const InstructionSet& set, Int8Layout layout) {
    Layer layer(layout);
    const bool pairs = layout == Int8Layout::kPairs;
    const auto [blend, lookup, tiles] =
        layer.race<3>({set.int8, pairs ? set.int8_lookup : nullptr, set.int8_tiles}, kTokens);
    const bool looks_up = lookup < kMargin * blend;
    Int8Choice choice;
    choice.kernels = looks_up ? set.int8_lookup : set.int8;
    choice.reason = !pairs ? "vector kernel" : looks_up ? "lookup kernel" : "blend kernel";
    if (pairs && set.int8_lookup)
        choice.reason += looks_up ? compared(lookup, blend) : compared(blend, lookup);
    const double vectors = std::min(blend, lookup);
    if (!set.int8_tiles) return choice;
    if (tiles >= kMargin * vectors) {
        choice.reason += ", not tiles" + compared(vectors, tiles);
        return choice;
    }
    choice.tiles = set.int8_tiles;
    choice.fewest_tokens = kTokens;
    const auto [few, on_tiles] = layer.race<2>({choice.kernels, choice.tiles}, kTokensOfTile);
    if (on_tiles < kMargin * few) choice.fewest_tokens = kTokensOfTile;
    choice.reason = "tiles kernel from " + std::to_string(choice.fewest_tokens) + " tokens on" +
                    compared(tiles, vectors) + ", below that " + choice.reason;
    return choice;
}

// Measured once per process.
const Int8Choice& measured(const InstructionSet& set, Int8Layout layout) {
    struct Choices {
        std::mutex mutex;
        std::map<std::pair<std::string, Int8Layout>, Int8Choice> made;
    };
    static PerProcess<Choices> of_process([] { return std::make_unique<Choices>(); });
    Choices& choices = of_process.get();
    const std::lock_guard<std::mutex> lock(choices.mutex);
    const auto key = std::make_pair(std::string(set.name), layout);
    auto found = choices.made.find(key);
    if (found == choices.made.end()) found = choices.made.emplace(key, measure(set, layout)).first;
    return found->second;
}

}  // namespace

Int8Choice choose_int8_kernels(const InstructionSet& set, bool pairs) {
    const char* variable = std::getenv("SPARSEBERT_INT8_KERNEL");
    const std::string name = variable && *variable ? variable : "auto";
    const std::string forced = name + " kernel (SPARSEBERT_INT8_KERNEL)";
    const std::string reason = pairs ? forced : "";  // dense weights have one kernel without tiles
    const auto require = [&](const Int8Kernels* kernels) {
        if (!kernels)
            throw std::invalid_argument(std::string(set.name) + " has no " + name +
                                        " kernel: unset SPARSEBERT_INT8_KERNEL.");
    };
    if (name == "auto") {
        if (set.int8_tiles || (pairs && set.int8_lookup))
            return measured(set, pairs ? Int8Layout::kPairs : Int8Layout::kDense);
        return {set.int8, nullptr, 0, pairs ? "blend kernel" : ""};
    }
    if (name == "blend") return {set.int8, nullptr, 0, reason};
    if (name == "lookup") {
        if (pairs) require(set.int8_lookup);
        return {pairs ? set.int8_lookup : set.int8, nullptr, 0, reason};
    }
    if (name == "tiles") {
        require(set.int8_tiles);
        return {set.int8, set.int8_tiles, 0, forced};
    }
    throw std::invalid_argument("unknown int8 kernel '" + name +
                                "': SPARSEBERT_INT8_KERNEL takes blend, lookup, tiles or auto.");
}

}  // namespace sparsebert
