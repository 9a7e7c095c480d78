#include "positions.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "distances.h"

namespace sparsebert {
namespace {

// How far a tile can reach past a window: by 64 queries in floating point, by up to 16 queries and
// by 16 keys in int8.
constexpr int kTileReach = 96;
constexpr float kNothing = -1e30f;
constexpr float kLog2E = 1.44269504f;

// MPNet's and T5's bucket of a distance (Raffel et al. 2019, arXiv:1910.10683): half of the buckets
// are for keys after the query; of each half, half are for single distances, and the rest widen
// with their logarithm up to 128. In float32, as transformers computes it.
int bucket(int key_minus_query, int buckets) {
    const int half = buckets / 2, exact = half / 2, distance = std::abs(key_minus_query);
    const int start = key_minus_query > 0 ? half : 0;
    if (distance < exact) return start + distance;
    const float grown = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                        static_cast<float>(std::log(static_cast<double>(kFarthestBucket) / exact)) *
                        static_cast<float>(half - exact);
    return start + std::min(exact + static_cast<int>(grown), half - 1);
}

template <typename Table, typename Value>
int index_of(std::vector<Table>& tables, Value Table::* key, Value value) {
    for (size_t i = 0; i < tables.size(); ++i)
        if (tables[i].*key == value) return static_cast<int>(i);
    Table table{};
    table.*key = value;
    tables.push_back(std::move(table));
    return static_cast<int>(tables.size()) - 1;
}

}  // namespace

Positions::Positions(const ModelShape& shape, Order order)
    : attention_(shape.layers_attention),
      buckets_(shape.relative_bias),
      slopes_(shape.slopes),
      heads_(shape.heads),
      half_(shape.hidden_size / shape.heads / 2),
      longest_(shape.longest()),
      order_(order) {
    for (LayerAttention& layer : attention_) {
        // A window as wide as the longest text has no effect.
        if (layer.window >= longest_) layer.window = kEverything;
        const bool local = layer.window != kEverything;
        window_of_.push_back(local ? index_of(windows_, &Window::width, layer.window) : -1);
        angles_of_.push_back(
            layer.rotary.theta > 0 ? index_of(angles_, &Angles::speed, layer.rotary) : -1);
    }
    for (Window& window : windows_) {
        const int reach = window.width + kTileReach;
        window.bias.assign(2 * static_cast<size_t>(reach) + 1, kNothing);
        std::fill_n(window.bias.begin() + kTileReach, 2 * window.width + 1, 0.0f);
    }
}

void Positions::reserve(int tokens) {
    if (tokens <= capacity_ || (!by_head() && angles_.empty())) return;
    capacity_ = grown_capacity(capacity_, tokens, longest_);
    try {
        if (by_head()) fill_relative();
        for (Angles& angles : angles_) fill(angles);
    } catch (...) {  // some of the tables may have changed
        capacity_ = 0;
        throw;
    }
}

void Positions::fill_relative() {
    const int count = static_cast<int>(buckets_.size()) / heads_;
    const float scale = order_ == Order::kLanesAreKeys ? kLog2E : 1.0f;
    const size_t row = 2 * static_cast<size_t>(capacity_) + 1;
    relative_.resize(row * heads_);
    for (int d = -capacity_; d <= capacity_; ++d) {
        const int b = count ? bucket(order_ == Order::kLanesAreKeys ? d : -d, count) : 0;
        for (int head = 0; head < heads_; ++head)
            relative_[head * row + capacity_ + d] =
                scale *
                (slopes_.empty() ? buckets_[b * heads_ + head] : -slopes_[head] * std::abs(d));
    }
}

void Positions::fill(Angles& angles) const {
    const size_t count = static_cast<size_t>(capacity_) * half_;
    angles.cosines.resize(count);
    angles.sines.resize(count);
    for (int d = 0; d < half_; ++d) {
        // To float32, as in transformers: far from the start its rounding matters. Functions of
        // doubles, because those of floats differ between C libraries in the last bit.
        const double exponent = static_cast<float>(d) / static_cast<float>(half_);
        const float power = static_cast<float>(std::pow(double{angles.speed.theta}, exponent));
        const float frequency = 1.0f / power / angles.speed.factor;
        for (int position = 0; position < capacity_; ++position) {
            const double angle = static_cast<float>(position) * frequency;
            const size_t at = order_ == Order::kLanesAreKeys
                                  ? static_cast<size_t>(position) * half_ + d
                                  : static_cast<size_t>(d) * capacity_ + position;
            angles.cosines[at] = static_cast<float>(std::cos(angle));
            angles.sines[at] = static_cast<float>(std::sin(angle));
        }
    }
}

const float* Positions::bias(int layer, int head, int tokens) const {
    if (by_head())
        return relative_.data() + head * (2 * static_cast<size_t>(capacity_) + 1) + capacity_;
    if (window_of_[layer] < 0 || tokens <= attention_[layer].window) return nullptr;
    const Window& window = windows_[window_of_[layer]];
    return window.bias.data() + window.width + kTileReach;
}

Positions::Rotary Positions::rotary(int layer) const {
    if (angles_of_[layer] < 0) return {};
    const Angles& angles = angles_[angles_of_[layer]];
    const size_t stride = order_ == Order::kLanesAreKeys ? half_ : capacity_;
    return {angles.cosines.data(), angles.sines.data(), stride};
}

}  // namespace sparsebert
