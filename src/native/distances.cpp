#include "distances.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "shared_rows.h"

namespace sparsebert {

// Up to half of the buckets of either sign hold one distance each; the others widen with the
// logarithm of the distance. In between nothing comes closer to a whole number than 0.003 with 256
// buckets and 512 tokens, so that transformers' float32 finds the same.
int Disentangled::row(int distance) const {
    int bucket = distance;
    const int middle = buckets / 2, far = std::abs(distance);
    if (buckets && far > middle) {
        const double share = std::log(static_cast<double>(far) / middle) /
                             std::log(static_cast<double>(farthest - 1) / middle);
        bucket = middle + static_cast<int>(std::ceil(share * (middle - 1)));
        if (distance < 0) bucket = -bucket;
    }
    return std::clamp(bucket + span, 0, 2 * span - 1);
}

int grown_capacity(int capacity, int tokens, int longest) {
    return round_up(std::max(tokens, std::min(2 * capacity, longest)), 64);
}

void Distances::reserve(int tokens, ThreadPool& pool) {
    if (!model_.disentangled.span || tokens <= capacity_) return;
    capacity_ = grown_capacity(capacity_, tokens, model_.longest());
    layers_.resize(model_.layers.size());
    for (Floats& layer : layers_) layer.reserve(2 * stride() * model_.hidden_size);
    pool.run([&](int thread) {
        for (size_t l = thread; l < layers_.size(); l += pool.threads()) fill(static_cast<int>(l));
    });
}

void Distances::fill(int layer) {
    const Layer& weights = model_.layers[layer];
    float* out = layers_[layer].get();
    project(weights.key, model_.disentangled.keys, out);
    project(weights.query, model_.disentangled.queries, out + stride() * model_.hidden_size);
}

// A linear layer's outputs for the embedding of each distance, [hidden][stride].
void Distances::project(const Dense& layer, bool has, float* out) const {
    const int hidden = model_.hidden_size;
    std::fill_n(out, stride() * hidden, 0.0f);
    if (!has) return;
    const Disentangled& of = model_.disentangled;
    const int first = of.row(-capacity_), rows = of.row(capacity_) + 1 - first;
    const int width = kernels_.block_tokens;
    const size_t block = static_cast<size_t>(hidden) * width;
    // x and y, [hidden][width] each, then the layer's own scratch.
    Floats memory;
    float* x = memory.reserve(2 * block + model_.linear_scratch_floats);
    float* y = x + block;
    for (int begin = 0; begin < rows; begin += width) {
        const int count = std::min(width, rows - begin);
        std::fill_n(x, block, 0.0f);
        for (int lane = 0; lane < count; ++lane) {
            const size_t row = first + begin + lane;
            for (int f = 0; f < hidden; ++f)
                x[static_cast<size_t>(f) * width + lane] = of.embeddings[row * hidden + f];
        }
        run_linear(kernels_, {&layer.weight, layer.bias, x, nullptr, y, width, Activation::kNone},
                   0, hidden, y + block);
        for (int d = -capacity_; d < capacity_; ++d) {
            const int lane = of.row(d) - first - begin;
            if (lane < 0 || lane >= count) continue;
            for (int f = 0; f < hidden; ++f)
                out[f * stride() + capacity_ + d] = y[static_cast<size_t>(f) * width + lane];
        }
    }
}

HeadDistances Distances::of(int layer, int head) const {
    if (layers_.empty()) return {};
    const size_t size = model_.hidden_size / model_.heads;
    const float* keys = layers_[layer].get() + head * size * stride() + capacity_;
    return {keys, keys + stride() * model_.hidden_size, stride()};
}

}  // namespace sparsebert
