// Which kernels an int8 encoder uses. Linear layers with 1:2 weights can use blends (blends.inl)
// and, on AVX2, AVX-512 and NEON with dot products, lookup tables (lookup.inl, avx2_lookup.inl,
// neon_lookup.inl); on tile registers there are linear layers of either kind (linear_on_tiles.inl)
// and attention. Their results are equal; which is fastest depends on the CPU and on the number of
// tokens.
#pragma once

#include <string>

#include "../kernels/dispatch.h"

namespace sparsebert {

struct Int8Choice {
    const Int8Kernels* kernels = nullptr;
    // For `fewest_tokens` tokens and more; null if the others are faster.
    const Int8Kernels* tiles = nullptr;
    int fewest_tokens = 0;
    std::string reason;  // such as "blend kernel (measured 0.11 ms against 0.15 ms)"

    const Int8Kernels& with(int tokens) const {
        return tiles && tokens >= fewest_tokens ? *tiles : *kernels;
    }
};

// What SPARSEBERT_INT8_KERNEL names (blend, lookup, tiles or auto), or the fastest that the set has
// for 1:2 weights (`pairs`) or for dense ones, measured once per process. The reason is empty if
// there is no choice: dense weights without tiles. Throws std::invalid_argument for an unknown
// name, or for a kernel that the set lacks.
Int8Choice choose_int8_kernels(const InstructionSet& set, bool pairs);

}  // namespace sparsebert
