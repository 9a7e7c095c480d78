// What the kernel tests share: the available instruction sets, random contents, and comparisons
// that say where they failed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/dispatch.h"

namespace sparsebert {

// SplitMix64 (Steele, Lea and Flood 2014): small, fast, and the same everywhere. A coverage-guided
// fuzzer can choose the first draws, two bytes each.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    Random(const uint8_t* chosen, size_t bytes) : chosen_(chosen), left_(bytes / 2) {}

    uint64_t word() {
        if (left_ > 0) {
            uint16_t drawn;
            std::memcpy(&drawn, chosen_, sizeof drawn);
            chosen_ += sizeof drawn;
            --left_;
            return drawn * 0x0001000100010001ull;
        }
        uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    int between(int low, int high) {  // inclusive
        return low + static_cast<int>(word() % static_cast<uint64_t>(high - low + 1));
    }
    bool chance(double share) { return uniform(0.0f, 1.0f) < share; }
    float uniform(float low, float high) {
        return low + (high - low) * static_cast<float>(word() >> 40) * 0x1p-24f;
    }
    float normal() {  // approximately: a sum of twelve uniforms has variance 1
        float sum = -6.0f;
        for (int i = 0; i < 12; ++i) sum += uniform(0.0f, 1.0f);
        return sum;
    }
    // Not inlined: when it is, GCC 12 for aarch64 reads lists that share stack space too early.
    template <typename T>
    [[gnu::noinline]] T pick(std::initializer_list<T> of) {
        return of.begin()[word() % of.size()];
    }

  private:
    uint64_t state_ = 1;
    const uint8_t* chosen_ = nullptr;
    size_t left_ = 0;
};

// One family of kernels, or whole encoders: fixed examples, and one random case for the fuzzers.
struct KernelTest {
    const char* name;
    void (*examples)();
    void (*random_case)(Random& random);
};

extern const KernelTest kInt8LinearTest, kInt8LookupTest, kInt8TilesTest, kInt8RowsTest,
    kInt8AttentionTest;
extern const KernelTest kLinearTest, kBf16LinearTest, kRowsTest, kAttentionTest, kEncoderTest;
void test_threads();

// All of them.
extern const std::vector<const KernelTest*> kTests;

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream text;
    text.precision(9);
    (text << ... << parts);
    throw Failure(text.str());
}

// Kernels for tile registers on plain memory (tile_plain.inl), which run on any machine.
extern const Int8Kernels kPlainTilesInt8;
extern const Bf16Kernels kPlainTilesBf16;

// How many times the kernels of a set, or a whole encoder, were called; one family of kernels may
// count several times.
inline uint64_t native_calls = 0;

// Calls check(kernels) once with each table of kernels that this machine can run.
template <typename Check>
void each_int8_kernels(Check check) {
    ++native_calls;
    check(kPlainTilesInt8);
    std::vector<const Int8Kernels*> seen;
    for (const std::string& name : available_instruction_sets()) {
        const InstructionSet& set = select_instruction_set(name);
        for (const Int8Kernels* kernels : {set.int8, set.int8_lookup, set.int8_tiles}) {
            bool fresh = kernels != nullptr;
            for (const Int8Kernels* other : seen) fresh = fresh && other != kernels;
            seen.push_back(kernels);
            if (!fresh) continue;
            ++native_calls;
            check(*kernels);
        }
    }
}
template <typename Check>
void each_float_kernels(Check check) {
    std::vector<const Kernels*> seen;
    for (const std::string& name : available_instruction_sets()) {
        const Kernels* kernels = select_instruction_set(name).kernels;
        bool fresh = true;
        for (const Kernels* other : seen) fresh = fresh && other != kernels;
        seen.push_back(kernels);
        if (!fresh) continue;
        ++native_calls;
        check(*kernels);
    }
}

// Sizes that are not a multiple of any vector width, and a few that are.
inline const std::vector<int> kTokens = {1, 7, 8, 15, 16, 17, 31, 33, 63, 65, 97};
inline const std::vector<int> kSizes = {1, 5, 12, 16, 36, 52, 64, 100, 130};
inline const std::vector<int> kHeadSizes = {1, 5, 12, 32, 33, 64, 100};

// `where` is only formatted if they differ.
template <typename... Where>
void expect_near(double got, double want, double tolerance, const Where&... where) {
    if (!(std::abs(got - want) <= tolerance))
        fail(where..., ": ", got, ", not ", want, " within ", tolerance);
}

template <typename T, typename... Where>
void expect_equal(T got, T want, const Where&... where) {
    if (got != want) fail(where..., ": ", got, ", not ", want);
}

}  // namespace sparsebert
