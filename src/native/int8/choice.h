// Which of two kernels for 1:2 weights an encoder uses: blends (linear.inl) or pick tables
// (picks.inl). Their results are equal; which is faster depends on the ports of the CPU.
#pragma once

#include <string>

#include "../kernels/dispatch.h"

namespace sparsebert {

struct Int8Choice {
    const Int8Kernels* kernels;
    std::string reason;  // such as "blend kernel (measured 0.11 ms against 0.15 ms)"
};

// What SPARSEBERT_INT8_KERNEL names (blend, picks or auto), or the faster of those that the set
// has, measured once in a process. Throws std::invalid_argument for an unknown name, or for picks
// where the set has none.
Int8Choice choose_int8_kernels(const InstructionSet& set);

}  // namespace sparsebert
