// Which kernels run: the best that both this CPU and this build have, or the one asked for.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace sparsebert {

// Names of the instruction sets that can run here, best first.
std::vector<std::string> available_instruction_sets();

// The kernels called `name`; an empty name means SPARSEBERT_ISA, or else the best available.
// Throws std::invalid_argument for an unknown name, one this build lacks, or one this CPU lacks.
const Kernels& select_kernels(const std::string& name);

}  // namespace sparsebert
