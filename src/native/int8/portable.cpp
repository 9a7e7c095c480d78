// Any CPU: plain loops over a tile's rows, which the compiler may vectorise.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "../half.h"
#include "kernels.h"

namespace sparsebert {
namespace {

#include "portable.inl"

constexpr int kTiles = 1, kPairTokens = 2, kDenseTokens = 2;
constexpr int kAttentionTiles = 1, kAttentionTokens = 2;

#include "blends.inl"
#include "rows.inl"
#include "tiles.inl"

#include "attention.inl"
#include "linear.inl"

}  // namespace

const Int8Kernels kPortableInt8 = {"portable", linear, row_sums, attention,
                                   activate,   gate,   norm,     split_heads,
                                   add_scaled, dot,    rotate,   gather};

}  // namespace sparsebert
