// What happens to a token's row between the products: quantising, LayerNorm, activations.
#pragma once

#include "../kernels/math.inl"

// x/2 (1 + erf(x / sqrt 2)) as x (1/2 + c P(c^2)), c = x clamped to [-4, 4], P of degree 6 fitted
// by minimax with P(16) = 1/8: absolute error below 2e-4, a fraction of a step of the uint8 that
// follows, for a third of the time of `gelu`.
inline Vec quick_gelu(Vec x) {
    const Vec c = min(max(x, Vec::broadcast(-4.0f)), Vec::broadcast(4.0f));
    const Vec s = mul(c, c);
    Vec p = Vec::broadcast(2.258821048e-8f);
    p = fma(p, s, Vec::broadcast(-1.588827278e-6f));
    p = fma(p, s, Vec::broadcast(4.776389039e-5f));
    p = fma(p, s, Vec::broadcast(-8.121875197e-4f));
    p = fma(p, s, Vec::broadcast(8.763691277e-3f));
    p = fma(p, s, Vec::broadcast(-6.455441303e-2f));
    p = fma(p, s, Vec::broadcast(3.978702671e-1f));
    return mul(x, fma(p, c, Vec::broadcast(0.5f)));
}

template <typename Function>
inline void map_row(float* y, int count, Function function) {
    for (int i = 0; i < count; i += Vec::kWidth) function(Vec::load(y + i)).store(y + i);
}

[[gnu::noinline]] void activate(float* y, int count, Activation activation) {
    switch (activation) {
        case Activation::kNone:
            break;
        case Activation::kGelu:
            map_row(y, count, [](Vec x) { return quick_gelu(x); });
            break;
        case Activation::kGeluTanh:
            map_row(y, count, [](Vec x) { return gelu_tanh(x); });
            break;
        case Activation::kTanh:
            map_row(y, count, [](Vec x) { return tanh(x); });
            break;
        case Activation::kRelu:
            map_row(y, count, [](Vec x) { return max(x, Vec::broadcast(0.0f)); });
            break;
    }
}

inline float lane_sum(Vec x) {
    float lanes[Vec::kWidth], total = 0.0f;
    x.store(lanes);
    for (float lane : lanes) total += lane;
    return total;
}

inline float largest(Vec x) {
    float lanes[Vec::kWidth];
    x.store(lanes);
    float most = lanes[0];
    for (float lane : lanes) most = lane > most ? lane : most;
    return most;
}

// lo = min(0, min x), hi = max(0, max x); scale = (hi - lo) / 255, zero = round(-lo / scale). The
// row is padded with zeros to 16, which lie between the two.
inline void quantize_range(const float* x, int features, Vec low, Vec high, const Int8Rows& out,
                           int row) {
    const float lo = -largest(sub(Vec::broadcast(0.0f), low)), hi = largest(high);
    const float scale = (hi - lo) / 255.0f;
    const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const float zero = std::nearbyint(-lo * inverse);
    out.scales[row] = scale;
    out.zeros[row] = static_cast<int32_t>(zero);
    uint8_t* bytes = out.values + row * out.stride;
    for (int f = 0; f < features; f += 16) quantize_16(x + f, inverse, zero, bytes + f);
}

void quantize(const float* x, int features, const Int8Rows& out, int row) {
    Vec low = Vec::broadcast(0.0f), high = low;
    for (int f = 0; f < features; f += Vec::kWidth) {
        const Vec value = Vec::load(x + f);
        low = min(low, value);
        high = max(high, value);
    }
    quantize_range(x, features, low, high, out, row);
}

void norm(float* x, const Int8Norm& norm, const Int8Rows* out, int row) {
    const int padded = round_up(norm.features, 16);
    const float count = static_cast<float>(norm.features);
    Vec sum = Vec::broadcast(0.0f);
    for (int f = 0; f < padded; f += Vec::kWidth) sum = add(sum, Vec::load(x + f));
    const float mean = lane_sum(sum) / count;
    // A second pass for the variance: E[x^2] - E[x]^2 would cancel. The padding is zero, so that
    // each of its lanes adds mean^2.
    const Vec centre = Vec::broadcast(mean);
    Vec squares = Vec::broadcast(0.0f);
    for (int f = 0; f < padded; f += Vec::kWidth) {
        const Vec centred = sub(Vec::load(x + f), centre);
        squares = fma(centred, centred, squares);
    }
    const float surplus = static_cast<float>(padded - norm.features) * mean * mean;
    const float variance = std::max(0.0f, (lane_sum(squares) - surplus) / count);
    const Vec factor = Vec::broadcast(1.0f / std::sqrt(variance + norm.epsilon));
    Vec low = Vec::broadcast(0.0f), high = low;
    for (int f = 0; f < padded; f += Vec::kWidth) {
        const Vec centred = mul(sub(Vec::load(x + f), centre), factor);
        const Vec y = fma(centred, Vec::load(norm.gamma + f), Vec::load(norm.beta + f));
        y.store(x + f);
        low = min(low, y);
        high = max(high, y);
    }
    if (out) quantize_range(x, norm.features, low, high, *out, row);
}

// 16 values from x[d] on, zeros from x[size] on.
inline const float* padded_16(const float* x, int d, int size, float* buffer) {
    if (d + 16 <= size) return x + d;
    std::memset(buffer, 0, sizeof(float) * 16);
    return static_cast<float*>(std::memcpy(buffer, x + d, sizeof(float) * (size - d)));
}

// Each head by its own largest magnitude; queries are stored plus 128, as unsigned bytes.
void split_heads(const float* projections, size_t stride, const Int8Heads& heads, size_t token) {
    const int size = heads.head_size, depth = heads.depth();
    float buffer[16];
    for (int part = 0; part < 3; ++part)
        for (int head = 0; head < heads.heads; ++head) {
            const float* x = projections + part * stride + static_cast<size_t>(head) * size;
            Vec most = Vec::broadcast(0.0f);
            for (int d = 0; d < depth; d += 16) {
                const float* values = padded_16(x, d, size, buffer);
                for (int i = 0; i < 16; i += Vec::kWidth) {
                    const Vec value = Vec::load(values + i);
                    most = max(most, max(value, sub(Vec::broadcast(0.0f), value)));
                }
            }
            const float scale = largest(most) / 127.0f;
            const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
            const size_t index = (token * 3 + part) * heads.heads + head;
            heads.scales[index] = scale;
            uint8_t* out = heads.values + index * depth;
            for (int d = 0; d < depth; d += 16)
                quantize_signed_16(padded_16(x, d, size, buffer), inverse, part == 0 ? 128 : 0,
                                   out + d);
        }
}

void add_scaled(const int8_t* row, float scale, int count, float* y) {
    for (int i = 0; i < count; ++i) y[i] += scale * static_cast<float>(row[i]);
}

float dot(const float* a, const float* b, int count) {
    Vec total = Vec::broadcast(0.0f);
    int i = 0;
    for (; i + Vec::kWidth <= count; i += Vec::kWidth)
        total = fma(Vec::load(a + i), Vec::load(b + i), total);
    float result = lane_sum(total);
    for (; i < count; ++i) result += a[i] * b[i];
    return result;
}
