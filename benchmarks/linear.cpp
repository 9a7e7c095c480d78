// Speed of the linear kernels alone, one thread, dense beside 1:2, in interleaved rounds. For
// x86-64:
//   cmake -S . -B build/bench -DSPARSEBERT_MODULE=OFF -DSPARSEBERT_BENCHMARKS=ON
//   cmake --build build/bench --target linear_bench && build/bench/linear_bench [instruction set]
// GFLOP/s count the dense layer's 2 x rows x columns x tokens, so that dense and 1:2 compare by
// time. `FMA` is a loop of multiply-adds between registers in the same round: what the core could
// do at that moment. Shares are of it, for 1:2 of twice it, since half of the weights are skipped.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "workspace.h"

using namespace sparsebert;
using Clock = std::chrono::steady_clock;

namespace {

double seconds(Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
}

template <typename Work>
double time_of(Work work, int repeats) {
    const auto start = Clock::now();
    for (int i = 0; i < repeats; ++i) work();
    return seconds(start) / repeats;
}

struct Case {
    Case(int rows, int columns, int width) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        y.reserve(rows * width);
        x.reserve(columns * width);
        for (int i = 0; i < columns * width; ++i) x.get()[i] = normal(random);
        dense_values.resize(static_cast<size_t>(rows) * columns);
        for (float& value : dense_values) value = normal(random);
        const int panels = (columns + kPanelColumns - 1) / kPanelColumns;
        bits.resize(static_cast<size_t>(panels) * rows);
        for (uint32_t& word : bits) word = random();
        dense.rows = pairs.rows = rows;
        dense.columns = pairs.columns = columns;
        dense.values = pairs.values = dense_values.data();
        pairs.layout = Layout::kPairs;
        pairs.kept = 32;
        pairs.bits = bits.data();
        bias.resize(rows);
        this->width = width;
    }
    Linear call(const Matrix& matrix) {
        return {&matrix, bias.data(), x.get(), nullptr, y.get(), width, Activation::kNone};
    }
    Floats x, y;
    std::vector<float> dense_values, bias;
    std::vector<uint32_t> bits;
    Matrix dense, pairs;
    int width;
};

// Twelve chains of multiply-adds in registers: enough to hide the latency of each.
constexpr int kChains = 12;

template <typename Lanes>
[[gnu::always_inline]] inline void multiply_add(int steps) {
    // Read again for each chain, so that the compiler cannot merge any two.
    static volatile float start = 1e-3f;
    Lanes sums[kChains], factor = Lanes{} + start, total = {};
    for (Lanes& sum : sums) sum = Lanes{} + start;
    for (int i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + factor;
    for (const Lanes& sum : sums) total += sum;
    [[maybe_unused]] static volatile float result;
    result = total[0];
}

typedef float Lanes4 __attribute__((vector_size(16)));
typedef float Lanes8 __attribute__((vector_size(32)));
typedef float Lanes16 __attribute__((vector_size(64)));
void multiply_add_portable(int steps) { multiply_add<Lanes4>(steps); }
[[gnu::target("avx2,fma")]] void multiply_add_avx2(int steps) { multiply_add<Lanes8>(steps); }
[[gnu::target("avx512f")]] void multiply_add_avx512(int steps) { multiply_add<Lanes16>(steps); }

// GFLOP/s of one core when nothing but arithmetic limits it.
double peak(const std::string& set) {
    constexpr int kSteps = 50000;
    const auto work = set == "avx512" ? multiply_add_avx512
                      : set == "avx2" ? multiply_add_avx2
                                      : multiply_add_portable;
    const int lanes = set == "avx512" ? 16 : set == "avx2" ? 8 : 4;
    return 2.0 * kChains * lanes * kSteps / time_of([&] { work(kSteps); }, 1) / 1e9;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}  // namespace

int main(int count, char** arguments) {
    const Kernels& kernels = *select_instruction_set(count > 1 ? arguments[1] : "").kernels;
    std::printf("%s, one thread, median of 15 rounds\n", kernels.name);
    std::printf("%6s %6s %6s %8s %8s %6s %8s %8s %8s\n", "rows", "inputs", "tokens", "dense", "1:2",
                "ratio", "FMA", "dense %", "1:2 %");
    struct Size {
        int rows, columns;
    };
    for (const Size size : {Size{768, 768}, {3072, 768}, {768, 3072}, {384, 384}, {1536, 384}})
        for (const int width : {16, 32, 48, 64, 80, 96, 112, 128}) {
            const int rows = size.rows, columns = size.columns;
            Case layer(rows, columns, width);
            const double work = 2.0 * rows * columns * width / 1e9;
            const int repeats = std::max(1, static_cast<int>(0.4 / work));
            std::vector<double> dense, pairs, limit;
            for (int round = 0; round < 15; ++round) {
                dense.push_back(
                    work /
                    time_of([&] { kernels.linear(layer.call(layer.dense), 0, rows); }, repeats));
                pairs.push_back(
                    work /
                    time_of([&] { kernels.linear(layer.call(layer.pairs), 0, rows); }, repeats));
                limit.push_back(peak(kernels.name));
            }
            std::printf("%6d %6d %6d %8.1f %8.1f %6.2f %8.1f %8.0f %8.0f\n", rows, columns, width,
                        median(dense), median(pairs), median(pairs) / median(dense), median(limit),
                        100 * median(dense) / median(limit), 50 * median(pairs) / median(limit));
        }
}
