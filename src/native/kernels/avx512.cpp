// AVX-512 (F, BW, VL, DQ): 32 registers of 16 floats. Intel: 2 FMAs and 2 loads a cycle, 48 KiB of
// L1; AMD Zen 4: 1 FMA and 1 load, 32 KiB. On both an FMA's memory operand costs as much as the FMA
// and its broadcast comes on top, so loads are what the kernels have to save.
#include <immintrin.h>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "vec_avx512.inl"

// Register tiles, in vectors of tokens: most for each kind of weight, and the sums of dense rows.
constexpr int kPairVectors = 8, kBitmapVectors = 8;
constexpr int kDenseVectors = 4, kDenseSums = 24;
constexpr int kAttentionVectors = 4;

#include "attention.inl"
#include "linear.inl"
#include "math.inl"
#include "rows.inl"

}  // namespace

const Kernels kAvx512Kernels = {"avx512", linear,  attention, layer_norm,
                                sum,      maximum, rotate,    multiply};

}  // namespace sparsebert
