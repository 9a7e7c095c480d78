// A BERT encoder with its head in int8.
#pragma once

#include <memory>
#include <vector>

#include "../shape.h"
#include "kernels.h"

namespace sparsebert {

struct Int8Layer {
    Int8Weight query, key, value, attention_output;
    Int8Norm attention_norm;
    Int8Weight intermediate, output;
    Int8Norm output_norm;
};

struct Int8Model : ModelShape {
    Int8Weight words, position_table, type_table;  // kTable
    Int8Norm embedding_norm;
    std::vector<Int8Layer> layers;
    Int8Weight pooler;     // sequence head: tanh(pooler(cls)), where the model has one
    Int8Weight transform;  // masked-LM head: LayerNorm(activation(transform(x)))
    Int8Norm transform_norm;
    Int8Weight decoder;                 // masked-LM head: the last layer, kTable
    const float* classifier = nullptr;  // other heads: the last layer, [outputs][hidden]
    const float* classifier_bias = nullptr;

    // What the pointers above point into, where it is not the file itself: vectors padded to 16.
    std::vector<std::unique_ptr<float[]>> vectors;
    std::vector<std::unique_ptr<int32_t[]>> sums;
};

}  // namespace sparsebert
