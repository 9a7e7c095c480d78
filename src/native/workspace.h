// The activations of one run in floating point.
#pragma once

#include "memory.h"

namespace sparsebert {

struct Workspace {
    Floats hidden;  // [hidden] the layer's input and, after LayerNorm, its output
    Floats sum;     // [hidden] residual sums before LayerNorm, or a preceding LayerNorm's output
    Floats projections;   // [3][hidden] queries, keys, values
    Floats context;       // [hidden]
    Floats first;         // [2][hidden] hidden and context of each sequence's first token
    Floats intermediate;  // [intermediate]
    Floats embedded;      // [embedding size] projected to `hidden`
    Floats logits;        // [last layer's rows] of one block, or of the batch's pooled vectors
    Floats gathered;  // [hidden] the head's input of each sequence, and [width] what it computes
    Floats scratch;   // for each thread: embeddings, one head's attention
};

}  // namespace sparsebert
