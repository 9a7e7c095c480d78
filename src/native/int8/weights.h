// Converts weights in a layout that no inner loop reads, once at load.
#pragma once

#include "../memory.h"
#include "kernels.h"

namespace sparsebert {

// Converts a kBitmap weight, stored in `memory`: to kPairs if no pair keeps both inputs (as in 1:4,
// where a pair that keeps none keeps a zero), else to kDense.
Int8Weight for_kernels(const Int8Weight& bitmap, Bytes& memory);

}  // namespace sparsebert
