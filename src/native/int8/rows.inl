// What happens to a token's row between the products: quantising, LayerNorm, activations.
#pragma once

#include "../kernels/math.inl"
#include "../kernels/rotate.inl"

// x/2 (1 + erf(x / sqrt 2)) as x (1/2 + c P(c^2)), c = x clamped to [-4, 4], P of degree 6 fitted
// by minimax with P(16) = 1/8: absolute error below 2e-4, a fraction of a step of the uint8 that
// follows, with no division.
inline Vec gelu_polynomial(Vec x) {
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

// Divides nothing by zero: a row of smaller numbers is as good as one of zeros.
constexpr float kSmallest = 1e-30f;

// lo = min(0, min x), hi = max(0, max x); scale = (hi - lo) / 255, zero = round(-lo / scale). The
// row is padded with zeros to 16, which lie between the two. Numbers that are not finite give a
// scale that is not, and so spoil the answer, but no zero point that sums could overflow with.
inline void quantize(const float* x, int features, Vec low, Vec high, const Int8Rows& out,
                     int row) {
    const float lo = -largest(sub(Vec::broadcast(0.0f), low)), hi = largest(high);
    const float scale = (hi - lo) / 255.0f;
    const float inverse = 1.0f / std::max(scale, kSmallest);
    const float zero = std::min(std::max(0.0f, std::nearbyint(-lo * inverse)), 255.0f);
    out.scales[row] = scale;
    out.zero_points[row] = static_cast<int32_t>(zero);
    uint8_t* bytes = out.values + row * out.stride;
    int f = 0;
    for (; f + 64 <= features; f += 64) quantize_64(x + f, inverse, zero, bytes + f);
    for (; f < features; f += 16) quantize_16(x + f, inverse, zero, bytes + f);
}

template <typename Function>
inline void activate_row(float* x, int features, const Int8Rows* out, int row, Function function) {
    Vec low = Vec::broadcast(0.0f), high = low;
    for (int f = 0; f < features; f += Vec::kWidth) {
        const Vec y = function(Vec::load(x + f));
        y.store(x + f);
        low = min(low, y);
        high = max(high, y);
    }
    if (out) quantize(x, features, low, high, *out, row);
}

// Calls use(function) with the function of an activation.
template <typename Use>
inline void with_function(Activation activation, Use use) {
    switch (activation) {
        case Activation::kNone:
            return use([](Vec v) { return v; });
        case Activation::kGelu:
            return use([](Vec v) { return gelu_polynomial(v); });
        case Activation::kGeluTanh:
            return use([](Vec v) { return gelu_tanh(v); });
        case Activation::kSilu:
            return use([](Vec v) { return silu(v); });
        case Activation::kTanh:
            return use([](Vec v) { return tanh(v); });
        case Activation::kRelu:
            return use([](Vec v) { return max(Vec::broadcast(0.0f), v); });
    }
}

void activate(float* x, int features, Activation activation, const Int8Rows* out, int row) {
    with_function(activation,
                  [&](auto function) { activate_row(x, features, out, row, function); });
}

// Sums over a row in four chains, for one would wait for itself. `count` is a multiple of 16.
template <typename Step>
inline float row_sum(const float* x, int count, Step step) {
    Vec sums[4];
    for (Vec& sum : sums) sum = Vec::broadcast(0.0f);
    int i = 0;
    for (; i + 4 * Vec::kWidth <= count; i += 4 * Vec::kWidth)
#pragma GCC unroll 4
        for (int chain = 0; chain < 4; ++chain)
            sums[chain] = step(Vec::load(x + i + chain * Vec::kWidth), sums[chain]);
    for (; i < count; i += Vec::kWidth) sums[0] = step(Vec::load(x + i), sums[0]);
    return lane_sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

void norm(float* x, const Int8Norm& norm, const Int8Rows* out, int row) {
    const int padded = round_up(norm.features, 16);
    const float count = static_cast<float>(norm.features);
    const float mean =
        row_sum(x, padded, [](Vec value, Vec sum) { return add(value, sum); }) / count;
    // The padding becomes the mean, which adds nothing to the variance; gamma and beta make it
    // zeros.
    std::fill(x + norm.features, x + padded, mean);
    // A second pass for the variance: E[x^2] - E[x]^2 would cancel.
    const Vec centre = Vec::broadcast(mean);
    const float squares = row_sum(x, padded, [&](Vec value, Vec sum) {
        const Vec centred = sub(value, centre);
        return fma(centred, centred, sum);
    });
    const float variance = squares / count;
    const Vec factor = Vec::broadcast(1.0f / std::sqrt(variance + norm.epsilon));
    Vec low = Vec::broadcast(0.0f), high = low;
    for (int f = 0; f < padded; f += Vec::kWidth) {
        const Vec centred = mul(sub(Vec::load(x + f), centre), factor);
        const Vec y = fma(centred, Vec::load(norm.gamma + f), Vec::load(norm.beta + f));
        y.store(x + f);
        low = min(low, y);
        high = max(high, y);
    }
    if (out) quantize(x, norm.features, low, high, *out, row);
}

// 16 values from x[d] on, zeros from x[size] on.
inline const float* padded_16(const float* x, int d, int size, float* buffer) {
    if (d + 16 <= size) return x + d;
    std::memset(buffer, 0, sizeof(float) * 16);
    return static_cast<float*>(std::memcpy(buffer, x + d, sizeof(float) * (size - d)));
}

// The last 16 may end in the second half, of which the first 16 have been read by then.
void gate(float* x, size_t second, int features, Activation activation, const Int8Rows* out,
          int row) {
    with_function(activation, [&](auto function) {
        Vec low = Vec::broadcast(0.0f), high = low;
        float one[16], other[16];
        for (int f = 0; f < features; f += 16) {
            const float* left = padded_16(x, f, features, one);
            const float* right = padded_16(x + second, f, features, other);
            for (int i = 0; i < 16; i += Vec::kWidth) {
                const Vec y = mul(function(Vec::load(left + i)), Vec::load(right + i));
                y.store(x + f + i);
                low = min(low, y);
                high = max(high, y);
            }
        }
        if (out) quantize(x, features, low, high, *out, row);
    });
}

// One head of `size` values by its own largest magnitude, to `depth` bytes; returns the scale.
inline float quantize_head(const float* x, int size, int depth, int offset, uint8_t* out) {
    float buffer[16];
    Vec most = Vec::broadcast(0.0f);
    for (int d = 0; d < depth; d += 16) {
        const float* values = padded_16(x, d, size, buffer);
        for (int i = 0; i < 16; i += Vec::kWidth) {
            const Vec value = Vec::load(values + i);
            most = max(most, max(value, sub(Vec::broadcast(0.0f), value)));
        }
    }
    const float scale = largest(most) / 127.0f;
    const float inverse = 1.0f / std::max(scale, kSmallest);
    for (int d = 0; d < depth; d += 16)
        quantize_signed_16(padded_16(x, d, size, buffer), inverse, offset, out + d);
    return scale;
}

// `Size` is the head size where it is known and a multiple of 16, so that loops unroll; else 0.
template <int Size>
void split(const float* projections, size_t stride, const Int8Heads& heads, size_t token) {
    const int size = Size ? Size : heads.head_size, depth = Size ? Size : heads.depth();
    const int count = heads.heads;
    float* scales = heads.scales + token * 3 * count;
    uint8_t* out = heads.values + token * heads.row();
    for (int part = 0; part < 3; ++part)
        for (int head = 0; head < count; ++head, ++scales, out += depth)
            *scales = quantize_head(projections + part * stride + static_cast<size_t>(head) * size,
                                    size, depth, part == 0 ? 128 : 0, out);
}

// Queries are stored plus 128, as unsigned bytes.
void split_heads(const float* projections, size_t stride, const Int8Heads& heads, size_t token) {
    switch (heads.head_size) {
        case 32:
            return split<32>(projections, stride, heads, token);
        case 64:
            return split<64>(projections, stride, heads, token);
        default:
            return split<0>(projections, stride, heads, token);
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

// The inputs that a block of rows shares: plain words, which the compiler makes vectors of.
void gather(const uint8_t* x, const uint8_t* second, int fours, uint8_t* out) {
    using Word [[gnu::may_alias, gnu::aligned(1)]] = uint32_t;
    const Word* pairs = reinterpret_cast<const Word*>(x);
    const Word* seconds = reinterpret_cast<const Word*>(second);
    Word* __restrict chosen = reinterpret_cast<Word*>(out);
    for (int f = 0; f < fours; ++f)
        chosen[f] = (pairs[2 * f] & ~seconds[f]) | (pairs[2 * f + 1] & seconds[f]);
}
