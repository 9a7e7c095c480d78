#include "shared_rows.h"

#include <algorithm>
#include <cstring>

#include "bf16/bf16.h"
#include "bf16/kernels.h"

namespace sparsebert {
namespace {

// Calls use(block, begin, end) for the part of each block that lies in [begin, end).
template <typename Use>
void each_block(int block_size, int begin, int end, Use use) {
    while (begin < end) {
        const int block = begin / block_size;
        const int stop = std::min(end, (block + 1) * block_size);
        use(block, begin, stop);
        begin = stop;
    }
}

template <typename Weight, typename Layout>
Weight kept(const Weight& weight, Layout dense) {
    Weight found = weight;
    found.layout = dense;
    found.columns = weight.columns / 2;
    return found;
}

}  // namespace

Matrix kept_inputs(const Matrix& weight) { return kept(weight, Layout::kDense); }
Int8Weight kept_inputs(const Int8Weight& weight) { return kept(weight, Int8Layout::kDense); }

namespace {

// Rounds the inputs to bf16, then runs like any other weight.
void run_rounded(const Kernels& kernels, const Linear& call, int row_begin, int row_end,
                 float* scratch) {
    const size_t inputs = static_cast<size_t>(call.weight->columns) * call.width;
    for (size_t i = 0; i < inputs; ++i) scratch[i] = from_bf16(to_bf16(call.x[i]));
    Matrix weight = *call.weight;
    weight.rounded = false;
    Linear rounded = call;
    rounded.weight = &weight;
    rounded.x = scratch;
    run_linear(kernels, rounded, row_begin, row_end, scratch + inputs);
}

}  // namespace

void run_linear(const Kernels& kernels, const Linear& call, int row_begin, int row_end,
                float* scratch) {
    const Matrix& w = *call.weight;
    if (w.rounded) return run_rounded(kernels, call, row_begin, row_end, scratch);
    if (w.layout != Layout::kSharedPairs) {
        Linear with_scratch = call;
        with_scratch.scratch = reinterpret_cast<uint8_t*>(scratch);
        return kernels.linear(with_scratch, row_begin, row_end);
    }
    const Matrix dense = kept_inputs(w);
    Linear part = call;
    part.weight = &dense;
    part.x = scratch;
    const size_t width = call.width, bytes_of_bits = (dense.columns + 7) / 8;
    each_block(w.shared_rows, row_begin, row_end, [&](int block, int begin, int end) {
        const uint8_t* bits = static_cast<const uint8_t*>(w.bits) + block * bytes_of_bits;
        for (int pair = 0; pair < dense.columns; ++pair) {
            const int second = bits[pair / 8] >> pair % 8 & 1;
            std::memcpy(scratch + pair * width, call.x + (2 * pair + second) * width,
                        sizeof(float) * width);
        }
        kernels.linear(part, begin, end);
    });
}

size_t linear_scratch_floats(const Matrix& weight, int tokens) {
    const size_t inputs = static_cast<size_t>(weight.columns) * tokens;
    const size_t rounded = weight.rounded ? inputs : 0;
    switch (weight.layout) {
        case Layout::kBf16Dense:
        case Layout::kBf16Pairs:
        case Layout::kBf16SharedPairs:
            return bf16_scratch_bytes(weight.columns, tokens) / sizeof(float);
        case Layout::kSharedPairs:
            return rounded + inputs / 2;
        default:
            return rounded;
    }
}

void run_linear(const Int8Kernels& kernels, const Int8Linear& call, int tile_begin, int tile_end) {
    const Int8Weight& w = *call.weight;
    if (w.layout != Int8Layout::kSharedPairs) return kernels.linear(call, tile_begin, tile_end);
    const Int8Weight dense = kept_inputs(w);
    const size_t chosen = static_cast<size_t>(dense.groups()) * kGroupInputs;  // bytes per block
    uint8_t* gathered = reinterpret_cast<uint8_t*>(call.scratch);
    const size_t stride = int8_stride(dense.columns);
    Int8Linear part = call;
    part.weight = &dense;
    part.scratch = call.scratch + stride * kGatherTokens;
    for (int first = 0; first < call.tokens; first += kGatherTokens) {
        part.tokens = std::min(kGatherTokens, call.tokens - first);
        part.x = {gathered, stride, call.x.scales + first, call.x.zero_points + first};
        part.y = call.y + first * call.stride;
        if (call.residual) part.residual = call.residual + first * call.stride;
        each_block(w.shared_rows / kTileRows, tile_begin, tile_end,
                   [&](int block, int begin, int end) {
                       const uint8_t* second = w.second + block * chosen;
                       for (int t = 0; t < part.tokens; ++t)
                           kernels.gather(call.x.values + (first + t) * call.x.stride, second,
                                          w.groups(), gathered + t * stride);
                       kernels.linear(part, begin, end);
                   });
    }
}

}  // namespace sparsebert
