#include "choice.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <vector>

#include "../memory.h"

namespace sparsebert {
namespace {

// The layer to measure: one of BERT-base, with the tokens of a run.
constexpr int kFeatures = 768, kTokens = 64;
// Each kernel is run as often, in turns; its best time counts. A few milliseconds in all.
constexpr int kRounds = 10;
// Picks must be faster by this much, so that the choice is the same from run to run.
constexpr double kMargin = 0.95;

struct Layer {
    Layer()
        : values(static_cast<size_t>(kFeatures) * kFeatures / 2),
          bits(values.size() / 64),
          scales(kFeatures, 0.01f),
          sums(kFeatures),
          x(kTokens * int8_stride(kFeatures)),
          token_scales(kTokens, 0.1f),
          zeros(kTokens),
          y(static_cast<size_t>(kTokens) * kFeatures) {
        uint64_t word = 1;
        for (uint64_t& choices : bits)  // as irregular as those of a real layer (Knuth's MMIX)
            choices = word = (word ^ word >> 29) * 6364136223846793005ull + 1442695040888963407ull;
        weight.layout = Int8Layout::kPairs;
        weight.rows = weight.columns = kFeatures;
        weight.values = values.data();
        weight.bits = bits.data();
        weight.scales = weight.bias = scales.data();
        weight.sums = sums.data();
        scratch.reserve(int8_linear_scratch(kFeatures));
    }

    double milliseconds(const Int8Kernels& kernels) {
        const Int8Rows rows = {x.data(), int8_stride(kFeatures), token_scales.data(), zeros.data()};
        const auto start = std::chrono::steady_clock::now();
        kernels.linear({&weight, rows, kTokens, nullptr, y.data(), kFeatures,
                        reinterpret_cast<int8_t*>(scratch.get()), 0},
                       0, weight.tiles());
        const auto end = std::chrono::steady_clock::now();
        return std::chrono::duration<double, std::milli>(end - start).count();
    }

    std::vector<int8_t> values;
    std::vector<uint64_t> bits;
    std::vector<float> scales;
    std::vector<int32_t> sums;
    std::vector<uint8_t> x;
    std::vector<float> token_scales;
    std::vector<int32_t> zeros;
    std::vector<float> y;
    Int8Weight weight;
    Bytes scratch;
};

struct Times {
    double blend = std::numeric_limits<double>::infinity(), picks = blend;
};

Times measure(const InstructionSet& set) {
    Layer layer;
    Times best;
    for (int round = 0; round < kRounds; ++round) {
        best.blend = std::min(best.blend, layer.milliseconds(*set.int8));
        best.picks = std::min(best.picks, layer.milliseconds(*set.int8_picks));
    }
    return best;
}

std::string compared(const char* winner, double time, double other) {
    char text[100];
    std::snprintf(text, sizeof text, "%s kernel (measured %.2f ms against %.2f ms)", winner, time,
                  other);
    return text;
}

}  // namespace

Int8Choice choose_int8_kernels(const InstructionSet& set) {
    const char* variable = std::getenv("SPARSEBERT_INT8_KERNEL");
    const std::string name = variable && *variable ? variable : "auto";
    if (name != "auto" && name != "blend" && name != "picks")
        throw std::invalid_argument("unknown int8 kernel '" + name +
                                    "': SPARSEBERT_INT8_KERNEL takes blend, picks or auto.");
    if (name == "picks" && !set.int8_picks)
        throw std::invalid_argument(std::string(set.name) +
                                    " has no picks kernel: unset SPARSEBERT_INT8_KERNEL.");
    if (name == "blend") return {set.int8, "blend kernel (SPARSEBERT_INT8_KERNEL)"};
    if (name == "picks") return {set.int8_picks, "picks kernel (SPARSEBERT_INT8_KERNEL)"};
    if (!set.int8_picks) return {set.int8, "blend kernel"};
    static const Times times = measure(set);  // only one set has both
    if (times.picks < kMargin * times.blend)
        return {set.int8_picks, compared("picks", times.picks, times.blend)};
    return {set.int8, compared("blend", times.blend, times.picks)};
}

}  // namespace sparsebert
