// The activations of one run in floating point.
#pragma once

#include "memory.h"

namespace sparsebert {

struct Workspace {
    Floats hidden;  // [hidden] the layer's input and, after LayerNorm, its output
    Floats sum;     // [hidden] residual sums before LayerNorm
    Floats query, key, value, context;  // [hidden]
    Floats intermediate;                // [intermediate]
    Floats logits;    // [classifier rows] of one block, or of the batch's pooled vectors
    Floats gathered;  // [hidden] the first token of each sequence
    Floats scratch;   // for each thread: embeddings, one head's attention
};

}  // namespace sparsebert
