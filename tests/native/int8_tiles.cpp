// Tile registers: when they may be used, on which threads, and that they are released; and linear
// layers on them against those without, bit for bit. The test int8-linear compares both with the
// definition; this one uses sizes at the boundaries of the blocks of tiles.
#include <algorithm>
#include <cstring>
#include <thread>

#include "int8_matrix.h"
#include "kernels/amx.h"
#include "shared_rows.h"

namespace sparsebert {
namespace {

int requests = 0;
bool permit() { return ++requests; }
bool refuse() { return !++requests; }

void check_permission() {
    constexpr uint64_t kVectors = 0xE7, kConfiguration = 1 << 17, kData = 1 << 18;
    const auto expect = [](const AmxReport& report, bool (*request)(), bool int8, bool bf16,
                           int asked, const char* where) {
        requests = 0;
        const AmxProducts products = amx_products(report, request);
        expect_equal(products.int8, int8, where, ", int8");
        expect_equal(products.bf16, bf16, where, ", bf16");
        expect_equal(requests, asked, where, ", requests");
    };
    const uint64_t all = kVectors | kConfiguration | kData;
    expect({true, true, true, all}, permit, true, true, 1, "everything available");
    expect({true, true, true, all}, refuse, false, false, 1, "refused by the system");
    expect({false, false, false, all}, permit, false, false, 0, "flags hidden");
    expect({true, false, false, all}, permit, false, false, 0, "tiles without products");
    expect({true, false, true, all}, permit, false, true, 1, "tiles without int8");
    expect({true, true, false, all}, permit, true, false, 1, "tiles without bf16");
    expect({true, true, true, kVectors}, permit, false, false, 0, "states not saved");
    expect({true, true, true, kVectors | kConfiguration}, permit, false, false, 0,
           "only half of the states saved");
}

#if defined(__x86_64__)
// Whether this thread has tile state that the system would have to save: XGETBV(1) has a bit for
// each state that is not in its initial configuration.
bool holds_tiles() {
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return low >> 17 & 3;
}
#else
bool holds_tiles() { return false; }
#endif

const Int8Kernels* tiles_here() {
    for (const std::string& name : available_instruction_sets())
        if (const Int8Kernels* tiles = select_instruction_set(name).int8_tiles) return tiles;
    return nullptr;
}

struct Case {
    Int8Form form;
    int rows, columns, tokens, first_tile, end_tile;
    bool in_place;
    uint64_t seed;
    bool widest = false;  // use the sums of weights of the widest layer
};

void check(const Case& c) {
    Random random(c.seed);
    Int8Matrix matrix(c.form, c.rows, c.columns, Contents::kRandom, random);
    for (int row = 0; row < c.rows; ++row) {
        matrix.scales[row] = random.uniform(0.0f, 0.05f);
        matrix.bias[row] = random.normal();
    }
    Int8Weight weight = matrix.weight();
    Guarded<int32_t> sums(weight.tiles() * kTileRows);
    for (int32_t& sum : sums) sum = random.pick({-128, 127}) * 32767;
    if (c.widest) weight.sums = sums.data();
    const size_t x_stride = int8_stride(c.columns);
    // The last row ends with its last group.
    const Guarded<uint8_t> x((c.tokens - 1) * x_stride + round_up(c.columns, kGroupInputs));
    for (uint8_t& value : x) value = static_cast<uint8_t>(random.word());
    const Guarded<float> scales(c.tokens);
    const Guarded<int32_t> zero_points(c.tokens);
    for (float& scale : scales) scale = random.uniform(0.001f, 0.1f);
    for (int32_t& zero : zero_points) zero = random.between(0, 255);
    const size_t stride = static_cast<size_t>(c.end_tile - c.first_tile) * kTileRows;
    const Guarded<float> residual(c.tokens * stride);
    for (float& value : residual) value = random.normal();
    const auto run = [&](const Int8Kernels& kernels) {
        Guarded<float> y(c.tokens * stride);
        std::copy(residual.begin(), residual.end(), y.begin());
        const Guarded<int8_t> scratch(
            std::max(int8_linear_scratch(c.columns), shared_scratch_bytes(c.columns)), 99);
        run_linear(kernels,
                   {&weight,
                    {x.data(), x_stride, scales.data(), zero_points.data()},
                    c.tokens,
                    c.in_place ? y.data() : nullptr,
                    y.data(),
                    stride,
                    scratch.data(),
                    c.first_tile * kTileRows},
                   c.first_tile, c.end_tile);
        return y;
    };
    const auto compare = [&](const Int8Kernels& without, const Int8Kernels& with) {
        const Guarded<float> want = run(without), got = run(with);
        for (size_t i = 0; i < want.size(); ++i)
            if (std::memcmp(&want[i], &got[i], sizeof(float)))
                fail(with.name, ", ", c.form.name(), " ", c.rows, " x ", c.columns, ", ", c.tokens,
                     " tokens, tiles ", c.first_tile, " to ", c.end_tile, ", seed ", c.seed,
                     ": token ", i / stride, ", row ", c.first_tile * kTileRows + i % stride,
                     " is ", got[i], ", not ", want[i], " as without tiles");
    };
    compare(kPortableInt8, kPlainTilesInt8);
    if (const Int8Kernels* tiles = tiles_here()) {
        compare(*select_instruction_set("avx512-vnni").int8, *tiles);
        if (holds_tiles()) fail(tiles->name, ": tiles are still in use after the call");
    }
}

Case drawn(int rows, int columns, int tokens, Random& random) {
    const Int8Form& form = kInt8Forms[random.word() % kInt8Forms.size()];
    const int tiles = (rows + kTileRows - 1) / kTileRows;
    const int first = random.chance(0.5) ? 0 : random.between(0, tiles - 1);
    return {form,
            rows,
            form.fitting(columns),
            tokens,
            first,
            random.between(first + 1, tiles),
            random.chance(0.5),
            random.word()};
}

void examples() {
    check_permission();
    Random random(1);
    for (const int tokens : {1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 65})
        for (const int columns : {8, 56, 64, 72, 120, 128, 130})
            for (const int rows : {1, 16, 17, 33, 64}) check(drawn(rows, columns, tokens, random));
    // More outputs than pass over a block of tokens together.
    for (const int rows : {256, 272, 300, 528}) check(drawn(rows, 72, 35, random));
    check({{Int8Layout::kPairs, 1, 2}, 96, 768, 64, 0, 6, true, 1});
    check({{Int8Layout::kDense}, 33, 3072, 33, 0, 3, false, 2});
    check({{Int8Layout::kDense}, 40, 128, 20, 0, 3, false, 4, true});
    // On a new thread, which has no tiles until it requests them.
    std::string failure;
    std::thread([&] {
        try {
            check({{Int8Layout::kPairs, 1, 2}, 48, 200, 40, 0, 3, false, 3});
        } catch (const Failure& found) {
            failure = found.what();
        }
    }).join();
    if (!failure.empty()) fail(failure);
}

void random_case(Random& random) {
    const int rows = random.between(1, 400), columns = random.between(1, 300);
    check(drawn(rows, columns, random.between(1, 70), random));
}

}  // namespace

const KernelTest kInt8TilesTest = {"int8-tiles", examples, random_case};

}  // namespace sparsebert
