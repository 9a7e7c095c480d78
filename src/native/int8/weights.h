// Weights that no inner loop reads, as those that are read, made once at load.
#pragma once

#include "../memory.h"
#include "kernels.h"

namespace sparsebert {

// A kBitmap weight in `memory`: as kPairs if no pair keeps both inputs (1:4 and the like, whose
// pairs may keep none: a zero), else as kDense.
Int8Weight for_kernels(const Int8Weight& bitmap, Bytes& memory);

}  // namespace sparsebert
