// Which kernels run: the best that both this CPU and this build have, or the ones requested.
#pragma once

#include <string>
#include <vector>

#include "../bf16/kernels.h"
#include "../int8/kernels.h"
#include "kernels.h"

namespace sparsebert {

struct InstructionSet {
    const char* name;
    const Kernels* kernels = nullptr;  // null if this build lacks the set
    const Int8Kernels* int8 = nullptr;
    bool supported = false;  // by this CPU and its operating system
    // int8 kernels with lookup tables and on tile registers; null if there are none.
    const Int8Kernels* int8_lookup = nullptr;
    const Int8Kernels* int8_tiles = nullptr;
    const Bf16Kernels* bf16 = nullptr;  // null if fp32 kernels multiply rounded numbers
};

// Names of the instruction sets that can run here, best first.
std::vector<std::string> available_instruction_sets();

// The set called `name`; an empty name means SPARSEBERT_ISA, or else the best available. Throws
// std::invalid_argument for an unknown name, one this build lacks, or one this CPU lacks.
const InstructionSet& select_instruction_set(const std::string& name);

}  // namespace sparsebert
