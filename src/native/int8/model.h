// An encoder with its head in int8. Parts that a model lacks are empty.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <vector>

#include "../memory.h"
#include "../shape.h"
#include "kernels.h"

namespace sparsebert {

struct Int8Layer {
    Int8Weight query, key, value;  // if fused, all three in `query`
    Int8Norm query_norm, key_norm;
    Int8Weight attention_output;
    Int8Norm attention_norm;
    Int8Norm residual_norm;  // after a second addition of the layer's input
    Int8Weight gate;         // if fused, the first rows of `intermediate`
    Int8Weight intermediate, output;
    Int8Norm output_norm;
};

struct Int8Model : ModelShape {
    Int8Weight words, position_table, type_table;  // kTable
    Int8Weight task_table;                         // every token uses its first row
    Int8Norm embedding_norm;
    Int8Weight projection;  // embeddings to hidden states
    std::vector<Int8Layer> layers;
    Int8Norm final_norm;
    Int8Weight head_dense;
    Int8Norm head_norm;
    Int8Weight decoder;           // masked-LM head: the last layer, kTable
    const float* last = nullptr;  // other heads: the last layer, [outputs][hidden]
    const float* last_bias = nullptr;

    bool has_pairs() const {  // 1:2 layers
        const auto any = [](std::initializer_list<const Int8Weight*> weights) {
            return std::any_of(weights.begin(), weights.end(), [](const Int8Weight* weight) {
                return weight->layout == Int8Layout::kPairs;
            });
        };
        return any({&projection, &head_dense}) ||
               std::any_of(layers.begin(), layers.end(), [&](const Int8Layer& l) {
                   return any({&l.query, &l.key, &l.value, &l.attention_output, &l.gate,
                               &l.intermediate, &l.output});
               });
    }

    // Memory that the pointers above point into where that is not the file itself: vectors padded
    // to a multiple of 16.
    std::vector<std::unique_ptr<float[]>> vectors;
    std::vector<std::unique_ptr<int32_t[]>> sums;
    std::vector<std::unique_ptr<uint8_t[]>> seconds;  // of kSharedPairs
    std::vector<Bytes> converted;                     // of kBitmap
};

}  // namespace sparsebert
