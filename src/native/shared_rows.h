// Linear layers of any layout on the kernels of an instruction set. Where blocks of rows keep the
// same input of each pair, a block is a dense layer over half of the inputs: these are gathered
// once per block for all tokens at hand, then the set's own dense kernel does the rest. Where
// inputs must be rounded to bf16, they are rounded first and then go through its fp32 kernels.
#pragma once

#include <cstddef>

#include "int8/kernels.h"
#include "kernels/kernels.h"

namespace sparsebert {

// The kept values of a kSharedPairs weight, [rows][columns / 2], as a kDense weight.
Matrix kept_inputs(const Matrix& weight);
Int8Weight kept_inputs(const Int8Weight& weight);

// `kernels.linear` for a weight of any layout. The scratch (of Int8Linear, or the last argument)
// must have the size that the functions below return.
void run_linear(const Kernels& kernels, const Linear& call, int row_begin, int row_end,
                float* scratch);
void run_linear(const Int8Kernels& kernels, const Int8Linear& call, int tile_begin, int tile_end);

size_t linear_scratch_floats(const Matrix& weight, int tokens);

constexpr int kGatherTokens = 64;

inline size_t shared_scratch_bytes(int columns) {
    const size_t rows = int8_stride(columns / 2) * kGatherTokens;
    return rows + int8_linear_scratch(columns / 2);
}

}  // namespace sparsebert
