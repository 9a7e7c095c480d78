// Weights as computing in bf16 wants them, made once at load.
#pragma once

#include "../memory.h"
#include "kernels.h"

namespace sparsebert {

// `weight` as `products` (not kStored) multiply it, in `memory`: fp32 numbers rounded to bf16
// in its own layout, or bf16 in a kBf16 layout.
Matrix in_bf16(const Matrix& weight, Products products, Bytes& memory);

}  // namespace sparsebert
