// What is done with weights once, at load.
#pragma once

#include "../memory.h"
#include "kernels.h"

namespace sparsebert {

// Converts a kBitmap weight, stored in `memory`: to kPairs if no pair keeps both inputs (as in 1:4,
// where a pair that keeps none keeps a zero), else to kDense.
Int8Weight for_kernels(const Int8Weight& bitmap, Bytes& memory);

// Whether any two weights that are multiplied by neighbouring bytes of the inputs, u8, give a sum
// of products that fits 16 bits: those of one sign add up to at most 128. kPairs and the dense
// layouts only.
bool has_small_pairs(const Int8Weight& weight);

}  // namespace sparsebert
