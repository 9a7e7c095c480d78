// The limits of this machine, to compare the kernels with: multiplies that never leave registers,
// and reading from each level of memory.
//   cmake -S . -B build/bench -DSPARSEBERT_MODULE=OFF -DSPARSEBERT_BENCHMARKS=ON
//   cmake --build build/bench --target limits_bench && build/bench/limits_bench [threads]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/dispatch.h"
#include "memory.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

using namespace sparsebert;
using Clock = std::chrono::steady_clock;

namespace {

template <typename Work>
double best_seconds(int rounds, Work work) {
    double best = 1e9;
    for (int round = 0; round < rounds; ++round) {
        const auto start = Clock::now();
        work();
        best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
    return best;
}

#ifdef __x86_64__
constexpr int kSteps = 1 << 20;

// Eight independent sums hide the latency (4 cycles) at two instructions per cycle.
[[gnu::target("avx512f")]] void fma_steps() {
    __m512 sums[8] = {}, factor = _mm512_set1_ps(0.5f);
    for (int step = 0; step < kSteps; ++step)
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i)
            asm volatile("vfmadd231ps %1, %1, %0" : "+v"(sums[i]) : "v"(factor));
}

[[gnu::target("avx512f")]] void dot_steps() {
    __m512i sums[8] = {}, factor = _mm512_set1_epi32(3);
    for (int step = 0; step < kSteps; ++step)
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i)
            asm volatile("vpdpbusd %1, %1, %0" : "+v"(sums[i]) : "v"(factor));
}

// Billions of operations per second: `lanes` multiplies and as many adds per instruction.
double giga_operations(void (*steps)(), int lanes) {
    return 2.0 * lanes * 8 * kSteps / best_seconds(9, steps) / 1e9;
}
#endif

#ifdef __x86_64__
[[gnu::target("avx2")]]
#endif
void read_all(const uint8_t* data, size_t bytes, size_t passes) {
    typedef long long Lanes __attribute__((vector_size(32)));
    Lanes sums[8] = {};
    for (size_t pass = 0; pass < passes; ++pass)
        for (size_t at = 0; at < bytes; at += sizeof sums)
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) sums[i] += reinterpret_cast<const Lanes*>(data + at)[i];
    asm volatile("" : : "m"(sums));
}

// GB/s of `threads` threads, each reading its own part of `bytes` many times over.
double read_gigabytes(size_t bytes, int threads) {
    Bytes memory;
    uint8_t* data = memory.reserve(bytes);
    std::memset(data, 1, bytes);
    const size_t part = bytes / threads / 256 * 256;
    const size_t passes = std::max<size_t>(1, (size_t{1} << 30) / bytes);
    const double seconds = best_seconds(5, [&] {
        std::vector<std::thread> readers;
        for (int thread = 0; thread < threads; ++thread)
            readers.emplace_back(read_all, data + thread * part, part, passes);
        for (std::thread& reader : readers) reader.join();
    });
    return static_cast<double>(part) * threads * passes / seconds / 1e9;
}

}  // namespace

int main(int count, char** arguments) {
    const int most = count > 1 ? std::max(1, std::atoi(arguments[1])) : 2;
#ifdef __x86_64__
    const std::vector<std::string> sets = available_instruction_sets();
    const auto has = [&](const char* name) {
        return std::find(sets.begin(), sets.end(), name) != sets.end();
    };
    if (has("avx512"))
        std::printf("fp32 FMA, 512 bits      %7.0f GFLOP/s per core\n",
                    giga_operations(fma_steps, 16));
    if (has("avx512-vnni"))
        std::printf("vpdpbusd, 512 bits      %7.0f GOP/s per core\n",
                    giga_operations(dot_steps, 64));
#endif
    for (const size_t kilobytes : {16, 512, 8 << 10, 48 << 10, 256 << 10})
        for (int threads = 1; threads <= most; ++threads)
            std::printf("reading %6zu KiB, %d thread%s %6.1f GB/s\n", kilobytes, threads,
                        threads == 1 ? " " : "s", read_gigabytes(kilobytes << 10, threads));
}
