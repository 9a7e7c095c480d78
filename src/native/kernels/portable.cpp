// Any CPU: vectors of four floats in the compiler's own vector type, which becomes SSE2 on x86-64
// and NEON on arm64, 16 registers of them at least.
#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "vec_portable.inl"

// Register tiles, in vectors of tokens: most for each kind of weight, and the sums of dense rows.
constexpr int kPairVectors = 6, kBitmapVectors = 8;
constexpr int kDenseVectors = 2, kDenseSums = 12;
constexpr int kAttentionVectors = 2;

#include "attention.inl"
#include "linear.inl"
#include "math.inl"
#include "rows.inl"

}  // namespace

const Kernels kPortableKernels = {"portable", linear,  attention, layer_norm,
                                  sum,        maximum, rotate,    multiply};

}  // namespace sparsebert
