// Sums over a row of floats. Included by files that have defined `Vec` and lane_sum.
#pragma once

// Sums in N chains, because a single one would be bound by latency. A chain has 16 lanes whatever a
// register's width, so that every set adds in the same order and gives the same bits.
template <int N>
struct Chains {
    static constexpr int kVectors = 16 / Vec::kWidth;
    Vec sums[N][kVectors];

    Chains() {
        for (auto& chain : sums)
            for (Vec& sum : chain) sum = Vec::broadcast(0.0f);
    }

    // step(lane, sum) gives a register's sums, from that lane on.
    template <typename Step>
    [[gnu::always_inline]] void include(int chain, Step step) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[chain][v] = step(v * Vec::kWidth, sums[chain][v]);
    }

    float total() {
        for (int apart = 1; apart < N; apart *= 2)
            for (int chain = 0; chain < N; chain += 2 * apart)
                for (int v = 0; v < kVectors; ++v)
                    sums[chain][v] = add(sums[chain][v], sums[chain + apart][v]);
        for (int half = kVectors / 2; half > 0; half /= 2)
            for (int v = 0; v < half; ++v) sums[0][v] = add(sums[0][v], sums[0][v + half]);
        return lane_sum(sums[0][0]);
    }
};
