// AVX2, FMA and F16C: 16 registers of 8 floats, 2 FMAs and 2 loads per cycle.
#include <immintrin.h>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "vec_avx2.inl"

// Register blocks in vectors of tokens: the widest for each kind of weight, and the number of
// accumulators of dense rows.
constexpr int kPairVectors = 6, kBitmapVectors = 8;
constexpr int kDenseVectors = 2, kDenseSums = 12;
constexpr int kAttentionVectors = 2;

#include "attention.inl"
#include "linear.inl"
#include "math.inl"
#include "rows.inl"

}  // namespace

const Kernels kAvx2Kernels = {"avx2", linear,  attention, layer_norm,
                              sum,    maximum, rotate,    multiply};

}  // namespace sparsebert
