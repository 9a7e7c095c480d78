// The activations of one run in floating point.
#pragma once

#include "memory.h"

namespace sparsebert {

struct Workspace {
    Floats hidden;  // [hidden] the layer's input and, after LayerNorm, its output
    Floats sum;     // [hidden] residual sums before LayerNorm, or what a LayerNorm in front gives
    Floats projections;   // [3][hidden] queries, keys, values
    Floats context;       // [hidden]
    Floats first;         // [2][hidden] hidden and context of each sequence's first token
    Floats intermediate;  // [intermediate]
    Floats embedded;      // [embedding size] what is projected to `hidden`
    Floats logits;        // [last layer's rows] of one block, or of the batch's pooled vectors
    Floats gathered;  // [hidden] what the head reads of each sequence, and [width] what it makes
    Floats scratch;   // for each thread: embeddings, one head's attention
};

}  // namespace sparsebert
