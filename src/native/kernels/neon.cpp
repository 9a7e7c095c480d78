// NEON, which every 64-bit Arm CPU has: 32 registers of 4 floats. Neoverse N1: 2 FMAs and 2 loads
// per cycle; Neoverse V1 and V2, Apple: 4 FMAs and 3 loads.
#include <arm_neon.h>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "vec_neon.inl"

// Register blocks in vectors of tokens: the widest for each kind of weight, and the number of
// accumulators of dense rows.
constexpr int kPairVectors = 8, kBitmapVectors = 8;
constexpr int kDenseVectors = 4, kDenseSums = 24;
constexpr int kAttentionVectors = 4;

#include "attention.inl"
#include "linear.inl"
#include "math.inl"
#include "rows.inl"

}  // namespace

const Kernels kNeonKernels = {"neon", linear,  attention, layer_norm,
                              sum,    maximum, rotate,    multiply};

}  // namespace sparsebert
