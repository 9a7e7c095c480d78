// The activation functions, from their definitions, in double precision.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"

namespace sparsebert {

inline double activated(double x, Activation activation) {
    constexpr double kPi = 3.14159265358979323846;
    switch (activation) {
        case Activation::kGelu:
            return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
        case Activation::kGeluTanh:
            return 0.5 * x * (1 + std::tanh(std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x)));
        case Activation::kTanh:
            return std::tanh(x);
        case Activation::kRelu:
            return std::max(x, 0.0);
        case Activation::kSilu:
            return x / (1 + std::exp(-x));
        default:
            return x;
    }
}

}  // namespace sparsebert
