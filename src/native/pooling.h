// The last step of pooling, however the vectors were summed.
#pragma once

#include <algorithm>
#include <cmath>

#include "shape.h"

namespace sparsebert {

inline Reads reads_of(Pooling pooling) {
    return pooling == Pooling::kCls ? Reads::kFirstTokens : Reads::kEveryToken;
}

// The larger of two; NaN if either is NaN, which std::max may drop.
inline float larger(float a, float b) { return a > b || a != a ? a : b; }

// Turns a sum (or a maximum) over `tokens` hidden states into the pooled vector.
inline void scale_pooled(float* vector, int size, int tokens, Pooling pooling, bool normalize) {
    float scale = 1.0f;
    if (pooling == Pooling::kMean) scale = 1.0f / static_cast<float>(tokens);
    if (pooling == Pooling::kMeanSqrtLength) scale = 1.0f / std::sqrt(static_cast<float>(tokens));
    for (int f = 0; f < size; ++f) vector[f] *= scale;
    if (!normalize) return;
    double squares = 0.0;
    for (int f = 0; f < size; ++f) squares += static_cast<double>(vector[f]) * vector[f];
    const float length = std::max(static_cast<float>(std::sqrt(squares)), 1e-12f);
    for (int f = 0; f < size; ++f) vector[f] /= length;
}

}  // namespace sparsebert
