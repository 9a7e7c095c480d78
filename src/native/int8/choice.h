// Which kernels an int8 encoder uses. Of linear layers with 1:2 weights there are blends
// (blends.inl) and, for AVX2, AVX-512 and NEON with dot products, lookup tables (lookup.inl,
// avx2_lookup.inl, neon_lookup.inl); on tile registers (linear_on_tiles.inl) there are layers of
// either kind, and attention. Their results are equal; which is faster depends on the CPU and on
// the number of tokens.
#pragma once

#include <string>

#include "../kernels/dispatch.h"

namespace sparsebert {

struct Int8Choice {
    const Int8Kernels* kernels = nullptr;
    const Int8Kernels* tiles =
        nullptr;  // from `fewest_tokens` on; null where the others are faster
    int fewest_tokens = 0;
    std::string reason;  // such as "blend kernel (measured 0.11 ms against 0.15 ms)"

    const Int8Kernels& with(int tokens) const {
        return tiles && tokens >= fewest_tokens ? *tiles : *kernels;
    }
};

// What SPARSEBERT_INT8_KERNEL names (blend, lookup, tiles or auto), or the fastest of those that
// the set has for 1:2 weights (`pairs`) or dense ones, measured once in a process. The reason is
// empty where there is no choice to speak of: dense weights without tiles. Throws
// std::invalid_argument for an unknown name, or for one that the set lacks.
Int8Choice choose_int8_kernels(const InstructionSet& set, bool pairs);

}  // namespace sparsebert
