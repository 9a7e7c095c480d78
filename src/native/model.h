// An encoder with its head in floating point: where each weight lies. What a model lacks is empty.
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

// LayerNorms stand behind attention and feed-forward or, with norm_first, before each.
struct Layer {
    Dense query, key, value;  // fused, all three in `query`
    Norm query_norm, key_norm;
    Dense attention_output;
    Norm attention_norm;
    Norm residual_norm;  // behind a second sum with the layer's input
    Dense gate;          // fused, the first rows of `intermediate`
    Dense intermediate, output;
    Norm output_norm;
};

struct Model : ModelShape {
    Matrix words, position_table, type_table;  // dense tables, a row for each id
    Matrix task_table;                         // of which every token takes the first row
    Norm embedding_norm;
    Dense projection;  // embeddings to hidden states
    std::vector<Layer> layers;
    Norm final_norm;
    Dense head_dense;
    Norm head_norm;
    Dense last;  // of the head

    std::vector<float> zeros;          // where a LayerNorm without bias points to
    std::vector<Bytes> converted;      // weights that are not used where they lie
    size_t linear_scratch_floats = 0;  // most that a layer needs
};

}  // namespace sparsebert
