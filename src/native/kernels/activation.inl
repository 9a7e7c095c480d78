// Activation functions over rows of floats.
#pragma once

#include "math.inl"

template <typename Function>
inline void map_row(float* y, int count, Function function) {
    for (int i = 0; i < count; i += Vec::kWidth) function(Vec::load(y + i)).store(y + i);
}

// Applies the activation to sums just stored, still in L1: one call per row costs less than the
// registers that the polynomials would take from every inner loop.
[[gnu::noinline]] void activate(float* y, int count, Activation activation) {
    switch (activation) {
        case Activation::kNone:
            break;
        case Activation::kGelu:
            map_row(y, count, [](Vec x) { return gelu(x); });
            break;
        case Activation::kGeluTanh:
            map_row(y, count, [](Vec x) { return gelu_tanh(x); });
            break;
        case Activation::kSilu:
            map_row(y, count, [](Vec x) { return silu(x); });
            break;
        case Activation::kTanh:
            map_row(y, count, [](Vec x) { return tanh(x); });
            break;
        case Activation::kRelu:
            map_row(y, count, [](Vec x) { return max(Vec::broadcast(0.0f), x); });
            break;
    }
}
