// What every form of a model has: its sizes, and the batch that it runs on.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace sparsebert {

enum class Head { kEncoder, kSequence, kQuestion, kToken, kMaskedLm };
enum class Pooling { kCls, kMean, kMeanSqrtLength, kMax };

struct ModelShape {
    int hidden_size = 0, intermediate_size = 0, heads = 0;
    int vocabulary = 0, positions = 0, types = 0;
    float epsilon = 1e-12f;
    Activation activation = Activation::kGelu;
    Head head = Head::kEncoder;
    int outputs = 0;  // of the head's last layer
};

// Token ids of a batch, end to end; sequence s is [offsets[s], offsets[s + 1]).
struct Batch {
    const int32_t* ids;
    const int32_t* types;
    const int32_t* offsets;
    int sequences;

    int tokens() const { return offsets[sequences]; }
};

}  // namespace sparsebert
