// Int8Kernels: lookup tables against blends, bit for bit. The test int8-linear compares both with
// the definition; this one uses sizes at the boundaries of the tables' own loops.
#include <algorithm>
#include <cstring>

#include "int8_matrix.h"

namespace sparsebert {
namespace {

void check(int rows, int columns, int tokens, int first_tile, int end_tile, bool in_place,
           uint64_t seed) {
    Random random(seed);
    const Contents contents = random.pick({Contents::kRandom, Contents::kHalf});
    Int8Matrix matrix({Int8Layout::kPairs, 1, 2}, rows, columns, contents, random);
    for (int row = 0; row < rows; ++row) {
        matrix.scales[row] = random.uniform(0.0f, 0.05f);
        matrix.bias[row] = random.normal();
    }
    const Int8Weight weight = matrix.weight();
    const size_t x_stride = int8_stride(columns);
    // The last row ends with its last group.
    Guarded<uint8_t> x((tokens - 1) * x_stride + round_up(columns, kGroupInputs));
    for (uint8_t& value : x) value = static_cast<uint8_t>(random.word());
    Guarded<float> scales(tokens);
    Guarded<int32_t> zero_points(tokens);
    for (float& scale : scales) scale = random.uniform(0.001f, 0.1f);
    for (int32_t& zero : zero_points) zero = random.between(0, 255);
    const size_t stride = static_cast<size_t>(end_tile - first_tile) * kTileRows;
    const Guarded<float> residual(tokens * stride);
    for (float& value : residual) value = random.normal();

    for (const std::string& name : available_instruction_sets()) {
        const InstructionSet& set = select_instruction_set(name);
        if (!set.int8_lookup) continue;
        const auto run = [&](const Int8Kernels& kernels) {
            Guarded<float> y(tokens * stride);
            std::copy(residual.begin(), residual.end(), y.begin());
            const Guarded<int8_t> scratch(int8_linear_scratch(columns), 99);
            kernels.linear({&weight,
                            {x.data(), x_stride, scales.data(), zero_points.data()},
                            tokens,
                            in_place ? y.data() : nullptr,
                            y.data(),
                            stride,
                            scratch.data(),
                            first_tile * kTileRows},
                           first_tile, end_tile);
            return y;
        };
        const Guarded<float> blend = run(*set.int8), lookup = run(*set.int8_lookup);
        for (size_t i = 0; i < blend.size(); ++i)
            if (std::memcmp(&blend[i], &lookup[i], sizeof(float)))
                fail(set.int8_lookup->name, ", ", rows, " x ", columns, ", ", tokens,
                     " tokens, tiles ", first_tile, " to ", end_tile, ", seed ", seed, ": token ",
                     i / stride, ", row ", first_tile * kTileRows + i % stride, " is ", lookup[i],
                     ", not ", blend[i], " as with blends");
    }
}

void examples() {
    uint64_t seed = 0;
    for (const int tokens : {7, 8, 13, 39, 40, 48, 49, 56, 63, 64, 65, 97, 128, 130})
        for (const int columns : {8, 10, 36, 52, 64, 66, 100, 130})
            for (const int rows : {1, 5, 16, 17, 36, 100}) {
                const int tiles = (rows + kTileRows - 1) / kTileRows;
                check(rows, columns, tokens, static_cast<int>(seed % tiles), tiles, seed % 2, seed);
                ++seed;
            }
    for (const int tokens : {48, 63, 130})
        for (const int columns : {768, 3072}) check(768, columns, tokens, 0, 48, false, ++seed);
    // More tiles than one pass keeps sums for, starting in the middle.
    check(1700, 768, 65, 7, 107, true, ++seed);
    check(1700, 36, 64, 50, 99, false, ++seed);
}

void random_case(Random& random) {
    const uint64_t seed = random.word();
    const int rows = random.between(1, 1000), tiles = (rows + kTileRows - 1) / kTileRows;
    const int first = random.between(0, tiles - 1);
    check(rows, 2 * random.between(1, 200), random.between(30, 140), first,
          random.between(first + 1, tiles), random.chance(0.5), seed);
}

}  // namespace

const KernelTest kInt8LookupTest = {"int8-lookup", examples, random_case};

}  // namespace sparsebert
