// AVX-512 (F, BW, VL, DQ): 32 registers of 16 floats. Intel: 2 FMAs and 2 loads per cycle, 48 KiB
// of L1; AMD Zen 4: 1 FMA and 1 load, 32 KiB. On both, an FMA's memory operand costs as much as the
// FMA itself and its broadcast comes on top, so the kernels are written to save loads.
#include <immintrin.h>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "vec_avx512.inl"

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

const Kernels kAvx512Kernels = {"avx512", linear,  attention, layer_norm,
                                sum,      maximum, rotate,    multiply};

}  // namespace sparsebert
