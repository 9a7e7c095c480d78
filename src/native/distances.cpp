#include "distances.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "shared_rows.h"

namespace sparsebert {

// Of either sign, distances up to half of `buckets` have a bucket each; the other buckets widen
// with the logarithm of the distance. With 256 buckets and 512 tokens the argument of ceil is never
// within 0.003 of an integer except at the ends, so that transformers' float32 gives the same
// buckets.
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
    const int capacity = grown_capacity(capacity_, tokens, model_.longest());
    capacity_ = 0;  // in case an allocation fails: the layers' contents are lost by then
    layers_.resize(model_.layers.size());
    for (Floats& layer : layers_) layer.reserve(2 * stride(capacity) * model_.hidden_size);
    std::vector<Floats> scratch(std::min<size_t>(pool.threads(), layers_.size()));
    for (Floats& floats : scratch) floats.reserve(2 * block() + model_.linear_scratch_floats);
    capacity_ = capacity;
    pool.run([&](int thread) {
        for (size_t l = thread; l < layers_.size(); l += pool.threads())
            fill(static_cast<int>(l), scratch[thread].get());
    });
}

// Floats that the activations of a block of distances take.
size_t Distances::block() const {
    return static_cast<size_t>(model_.hidden_size) * kernels_.block_tokens;
}

void Distances::fill(int layer, float* scratch) {
    const Layer& weights = model_.layers[layer];
    float* out = layers_[layer].get();
    project(weights.key, model_.disentangled.keys, out, scratch);
    project(weights.query, model_.disentangled.queries,
            out + stride(capacity_) * model_.hidden_size, scratch);
}

// A linear layer's outputs for the embedding of each distance, [hidden][stride]. The scratch holds
// the inputs and outputs of a block, [hidden][width] each, followed by the layer's own scratch.
void Distances::project(const Dense& layer, bool has, float* out, float* scratch) const {
    const int hidden = model_.hidden_size;
    const size_t row = stride(capacity_);
    std::fill_n(out, row * hidden, 0.0f);
    if (!has) return;
    const Disentangled& of = model_.disentangled;
    const int first = of.row(-capacity_), rows = of.row(capacity_) + 1 - first;
    const int width = kernels_.block_tokens;
    float *x = scratch, *y = x + block();
    for (int begin = 0; begin < rows; begin += width) {
        const int count = std::min(width, rows - begin);
        std::fill_n(x, block(), 0.0f);
        for (int lane = 0; lane < count; ++lane) {
            const size_t at = static_cast<size_t>(first + begin + lane) * hidden;
            for (int f = 0; f < hidden; ++f)
                x[static_cast<size_t>(f) * width + lane] = of.embeddings[at + f];
        }
        run_linear(kernels_, {&layer.weight, layer.bias, x, nullptr, y, width, Activation::kNone},
                   0, hidden, y + block());
        for (int d = -capacity_; d < capacity_; ++d) {
            const int lane = of.row(d) - first - begin;
            if (lane < 0 || lane >= count) continue;
            for (int f = 0; f < hidden; ++f)
                out[f * row + capacity_ + d] = y[static_cast<size_t>(f) * width + lane];
        }
    }
}

HeadDistances Distances::of(int layer, int head) const {
    if (layers_.empty()) return {};
    const size_t size = model_.hidden_size / model_.heads;
    const size_t row = stride(capacity_);
    const float* keys = layers_[layer].get() + head * size * row + capacity_;
    return {keys, keys + row * model_.hidden_size, row};
}

}  // namespace sparsebert
