// An encoder with its head in floating point: pointers to its weights. Parts that a model lacks are
// empty.
#pragma once

#include <vector>

#include "kernels/kernels.h"
#include "memory.h"
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

// LayerNorms follow attention and feed-forward or, with norm_first, precede them.
struct Layer {
    Dense query, key, value;  // if fused, all three in `query`
    Norm query_norm, key_norm;
    Dense attention_output;
    Norm attention_norm;
    Norm residual_norm;  // after a second addition of the layer's input
    Dense gate;          // if fused, the first rows of `intermediate`
    Dense intermediate, output;
    Norm output_norm;
};

struct Model : ModelShape {
    Matrix words, position_table, type_table;  // dense, one row per id
    Matrix task_table;                         // every token uses its first row
    Norm embedding_norm;
    Dense projection;  // embeddings to hidden states
    std::vector<Layer> layers;
    Norm final_norm;
    Dense head_dense;
    Norm head_norm;
    Dense last;  // the head's last layer

    std::vector<float> zeros;          // the bias of LayerNorms that have none
    std::vector<Bytes> converted;      // weights that are not used in place
    size_t linear_scratch_floats = 0;  // the most that any layer needs
};

}  // namespace sparsebert
