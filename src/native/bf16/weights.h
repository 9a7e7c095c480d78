// Converts weights for computing in bf16, once at load.
#pragma once

#include "../memory.h"
#include "kernels.h"

namespace sparsebert {

// `weight` in the form that `products` (not kStored) multiply, stored in `memory`: fp32 numbers
// rounded to bf16 in its own layout, or bf16 in a kBf16 layout.
Matrix in_bf16(const Matrix& weight, Products products, Bytes& memory);

}  // namespace sparsebert
