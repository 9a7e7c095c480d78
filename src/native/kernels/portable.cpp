// Any CPU: vectors of four floats in the compiler's own vector type, which compiles to SSE2 on
// x86-64 and NEON on arm64, both with at least 16 such registers.
#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "vec_portable.inl"

inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }

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

const Kernels kPortableKernels = {"portable", linear,  attention, layer_norm,
                                  sum,        maximum, rotate,    multiply};

}  // namespace sparsebert
