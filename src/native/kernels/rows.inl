// LayerNorm down the lanes, reductions along a row, and elementwise operations.
#pragma once

#include "rotate.inl"

template <int T>
void layer_norm_lanes(const float* x, float* y, const float* gamma, const float* beta, int features,
                      size_t width, float epsilon) {
    const Vec scale = Vec::broadcast(1.0f / static_cast<float>(features));
    Vec mean[T], factor[T];
    for (int t = 0; t < T; ++t) mean[t] = factor[t] = Vec::broadcast(0.0f);
    for (int f = 0; f < features; ++f)
        for (int t = 0; t < T; ++t)
            mean[t] = add(mean[t], Vec::load(x + f * width + t * Vec::kWidth));
    for (int t = 0; t < T; ++t) mean[t] = mul(mean[t], scale);
    // A second pass for the variance: E[x^2] - E[x]^2 would suffer from cancellation.
    for (int f = 0; f < features; ++f)
        for (int t = 0; t < T; ++t) {
            const Vec centred = sub(Vec::load(x + f * width + t * Vec::kWidth), mean[t]);
            factor[t] = fma(centred, centred, factor[t]);
        }
    for (int t = 0; t < T; ++t)
        factor[t] = div(Vec::broadcast(1.0f), sqrt(fma(factor[t], scale, Vec::broadcast(epsilon))));
    for (int f = 0; f < features; ++f) {
        const Vec weight = Vec::broadcast(gamma[f]), bias = Vec::broadcast(beta[f]);
        for (int t = 0; t < T; ++t) {
            const Vec centred = sub(Vec::load(x + f * width + t * Vec::kWidth), mean[t]);
            fma(mul(centred, factor[t]), weight, bias).store(y + f * width + t * Vec::kWidth);
        }
    }
}

void layer_norm(const float* x, float* y, const float* gamma, const float* beta, int features,
                int width, int lane_begin, int lane_end, float epsilon) {
    int lane = lane_begin;
    for (; lane + 4 * Vec::kWidth <= lane_end; lane += 4 * Vec::kWidth)
        layer_norm_lanes<4>(x + lane, y + lane, gamma, beta, features, width, epsilon);
    for (; lane < lane_end; lane += Vec::kWidth)
        layer_norm_lanes<1>(x + lane, y + lane, gamma, beta, features, width, epsilon);
}

float sum(const float* x, int count) {
    Vec total = Vec::broadcast(0.0f);
    int i = 0;
    for (; i + Vec::kWidth <= count; i += Vec::kWidth) total = add(total, Vec::load(x + i));
    float lanes[Vec::kWidth], result = 0.0f;
    total.store(lanes);
    for (int lane = 0; lane < Vec::kWidth; ++lane) result += lanes[lane];
    for (; i < count; ++i) result += x[i];
    return result;
}

float maximum(const float* x, int count) {
    float result = x[0];
    // A NaN is kept, and becomes the result.
    for (int i = 1; i < count; ++i) result = x[i] > result || x[i] != x[i] ? x[i] : result;
    return result;
}

void multiply(float* x, const float* by, size_t count) {
    size_t i = 0;
    for (; i + Vec::kWidth <= count; i += Vec::kWidth)
        mul(Vec::load(x + i), Vec::load(by + i)).store(x + i);
    for (; i < count; ++i) x[i] *= by[i];
}
