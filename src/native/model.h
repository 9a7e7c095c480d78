// A BERT encoder with its head in floating point: where each weight lies.
#pragma once

#include <vector>

#include "kernels/kernels.h"
#include "shape.h"

namespace sparsebert {

struct Norm {
    const float* gamma = nullptr;
    const float* beta = nullptr;
};

struct Dense {  // a linear layer
    Matrix weight;
    const float* bias = nullptr;
};

struct Layer {
    Dense query, key, value, attention_output;
    Norm attention_norm;
    Dense intermediate, output;
    Norm output_norm;
};

struct Model : ModelShape {
    Matrix words, position_table, type_table;  // dense tables, a row for each id
    Norm embedding_norm;
    std::vector<Layer> layers;
    Dense pooler;     // sequence head: tanh(pooler(cls)), where the model has one
    Dense transform;  // masked-LM head: LayerNorm(activation(transform(x)))
    Norm transform_norm;
    Dense classifier;  // the head's last layer
};

}  // namespace sparsebert
