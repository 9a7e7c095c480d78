// Speed of the int8 linear kernels alone, one thread, dense beside 1:2, in interleaved rounds.
//   cmake -S . -B build/bench -DSPARSEBERT_MODULE=OFF -DSPARSEBERT_BENCHMARKS=ON
//   cmake --build build/bench --target int8_linear_bench
//   build/bench/int8_linear_bench [instruction set [largest weight]]
// GOP/s count the dense layer's 2 x rows x columns x tokens, so that dense and 1:2 compare by time.
// 1:2 runs by blends and, if the set has them, by lookup tables, which leave few tokens to blends.
// Weights are at most 64, so that AVX2 multiplies bytes; with 127 it multiplies words.
// `L1 dense` is a small dense layer in the same round: what the machine could do at that moment.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "memory.h"

using namespace sparsebert;
using Clock = std::chrono::steady_clock;

namespace {

template <typename Work>
double time_of(Work work, int repeats) {
    const auto start = Clock::now();
    for (int i = 0; i < repeats; ++i) work();
    return std::chrono::duration<double>(Clock::now() - start).count() / repeats;
}

struct Case {
    Case(int rows, int columns, int tokens_, int largest) : tokens(tokens_) {
        std::mt19937_64 random(1);
        dense.rows = pairs.rows = rows;
        dense.columns = pairs.columns = columns;
        const size_t count = static_cast<size_t>(dense.tiles()) * int8_expansion(columns);
        int8_t* weights = reinterpret_cast<int8_t*>(values.reserve(count));
        for (size_t i = 0; i < count; ++i)
            weights[i] =
                static_cast<int8_t>(static_cast<int>(random() % (2 * largest + 1)) - largest);
        dense.small_pairs = pairs.small_pairs = largest <= 64;
        bits.resize(static_cast<size_t>(pairs.tiles()) * pairs.groups());
        for (uint64_t& word : bits) word = random();
        scales.assign(dense.tiles() * kTileRows, 0.01f);
        sums.assign(scales.size(), 1);
        dense.values = pairs.values = weights;
        dense.scales = pairs.scales = scales.data();
        dense.sums = pairs.sums = sums.data();
        dense.bias = pairs.bias = scales.data();
        pairs.layout = Int8Layout::kPairs;
        pairs.bits = bits.data();
        x.stride = int8_stride(columns);
        x.values = inputs.reserve(tokens * x.stride);
        for (size_t i = 0; i < tokens * x.stride; ++i) x.values[i] = static_cast<uint8_t>(random());
        token_scales.assign(tokens, 0.1f);
        token_zero_points.assign(tokens, 100);
        x.scales = token_scales.data();
        x.zero_points = token_zero_points.data();
        y.resize(static_cast<size_t>(tokens) * scales.size());
        scratch.reserve(int8_linear_scratch(columns));
    }
    Int8Linear call(const Int8Weight& weight) {
        return {&weight,
                x,
                tokens,
                nullptr,
                y.data(),
                scales.size(),
                reinterpret_cast<int8_t*>(scratch.get()),
                0};
    }
    int tokens;
    Int8Weight dense, pairs;
    Int8Rows x;
    Bytes values, inputs, scratch;
    std::vector<uint64_t> bits;
    std::vector<float> scales, token_scales, y;
    std::vector<int32_t> sums, token_zero_points;
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}  // namespace

int main(int count, char** arguments) {
    const InstructionSet& set = select_instruction_set(count > 1 ? arguments[1] : "");
    const auto gops = [](const Int8Kernels& kernels, Case& layer, const Int8Weight& weight) {
        const double work = 2e-9 * weight.rows * weight.columns * layer.tokens;
        const int repeats = std::max(1, static_cast<int>(2.0 / work));
        return work /
               time_of([&] { kernels.linear(layer.call(weight), 0, weight.tiles()); }, repeats);
    };
    std::printf("%s, one thread, median of 15 rounds, GOP/s\n", set.name);
    std::printf("%6s %6s %6s %10s %10s %10s %8s %10s %14s\n", "rows", "inputs", "tokens", "dense",
                "1:2 blend", "1:2 lookup", "ratio", "L1 dense", "1:2 / L1 dense");
    const int largest = count > 2 ? std::atoi(arguments[2]) : 64;
    Case small(48, 256, 48, largest);
    for (const auto& [rows, columns] :
         {std::pair{768, 768}, {3072, 768}, {768, 3072}, {384, 384}, {1536, 384}, {384, 1536}})
        for (const int tokens : {1, 4, 16, 32, 48, 64, 128}) {
            Case layer(rows, columns, tokens, largest);
            std::vector<double> dense, blend, lookup, limit, share;
            for (int round = 0; round < 15; ++round) {
                dense.push_back(gops(*set.int8, layer, layer.dense));
                blend.push_back(gops(*set.int8, layer, layer.pairs));
                lookup.push_back(set.int8_lookup ? gops(*set.int8_lookup, layer, layer.pairs) : 0);
                limit.push_back(gops(*set.int8, small, small.dense));
                share.push_back(std::max(blend.back(), lookup.back()) / limit.back());
            }
            const double best = std::max(median(blend), median(lookup));
            std::printf("%6d %6d %6d %10.0f %10.0f %10.0f %8.2f %10.0f %14.2f\n", rows, columns,
                        tokens, median(dense), median(blend), median(lookup), best / median(dense),
                        median(limit), median(share));
        }
}
