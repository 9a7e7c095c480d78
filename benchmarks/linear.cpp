// Speed of the linear kernels alone, one thread, dense beside 1:2, in rounds that take turns. With
// nanobind installed for the Python that cmake finds:
//   cmake -S . -B build/bench -DSPARSEBERT_BENCHMARKS=ON
//   cmake --build build/bench --target linear_bench && build/bench/linear_bench [instruction set]
// GFLOP/s count the dense layer's 2 x rows x columns x tokens, so that dense and 1:2 compare by
// time; `L1 dense` is a small dense layer in the same round, what the machine could do just then.
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
    Buffer x, y;
    std::vector<float> dense_values, bias;
    std::vector<uint32_t> bits;
    Matrix dense, pairs;
    int width;
};

// GFLOP/s of a dense layer of 24 rows, 64 inputs and 64 tokens, which never leaves L1.
double peak(const Kernels& kernels) {
    static Case small(24, 64, 64);
    const double time = time_of([&] { kernels.linear(small.call(small.dense), 0, 24); }, 2000);
    return 2.0 * 24 * 64 * 64 / time / 1e9;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}  // namespace

int main(int count, char** arguments) {
    const Kernels& kernels = select_kernels(count > 1 ? arguments[1] : "");
    std::printf("%s, one thread, median of 15 rounds\n", kernels.name);
    std::printf("%6s %6s %6s %12s %12s %8s %12s\n", "rows", "inputs", "tokens", "dense", "1:2",
                "ratio", "L1 dense");
    for (const auto& [rows, columns] :
         {std::pair{768, 768}, {3072, 768}, {768, 3072}, {384, 384}, {1536, 384}})
        for (const int width : {16, 32, 48, 64, 80, 96, 112, 128}) {
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
                limit.push_back(peak(kernels));
            }
            std::printf("%6d %6d %6d %12.1f %12.1f %8.2f %12.1f\n", rows, columns, width,
                        median(dense), median(pairs), median(pairs) / median(dense), median(limit));
        }
}
