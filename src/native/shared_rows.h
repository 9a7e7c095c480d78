// Linear layers in which blocks of rows keep the same input of each pair: a block is a dense layer
// over half of the inputs. These are gathered once for the block and all tokens at hand, then the
// instruction set's own dense kernel does the rest. No set implements it.
#pragma once

#include <cstddef>

#include "int8/kernels.h"
#include "kernels/kernels.h"

namespace sparsebert {

// What the rows of a kSharedPairs weight keep, [rows][columns / 2], as a kDense one.
Matrix kept_inputs(const Matrix& weight);
Int8Weight kept_inputs(const Int8Weight& weight);

// `kernels.linear` for a weight of any layout. For kSharedPairs the scratch (of Int8Linear, or the
// last argument) must hold what the functions below say.
void run_linear(const Kernels& kernels, const Linear& call, int row_begin, int row_end,
                float* scratch);
void run_linear(const Int8Kernels& kernels, const Int8Linear& call, int tile_begin, int tile_end);

inline size_t shared_scratch_floats(int columns) {
    return static_cast<size_t>(columns) / 2 * kBlockTokens;
}

constexpr int kGatherTokens = 64;

inline size_t shared_scratch_bytes(int columns) {
    const size_t rows = int8_stride(columns / 2) * kGatherTokens;
    return rows + int8_linear_scratch(columns / 2);
}

}  // namespace sparsebert
