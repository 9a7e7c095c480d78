// What attention knows of positions: relative biases, windows and rotary embeddings.
#pragma once

#include <vector>

#include "shape.h"

namespace sparsebert {

// A bias is added to the score of a query i and a key j by their distance: MPNet's learned one or
// ALiBi's, -slope |i - j| (Press et al. 2021, arXiv:2108.12409), for each head; or the edge of a
// window, 0 inside and so low outside that nothing is left. Tables grow with the longest sequence
// seen, because models allow thousands of tokens that few texts have.
class Positions {
  public:
    // kLanesAreQueries keeps biases by i - j and angles [half a head][tokens]; kLanesAreKeys biases
    // by j - i, in powers of two, and angles [tokens][half a head].
    enum class Order { kLanesAreQueries, kLanesAreKeys };

    Positions(const ModelShape& shape, Order order);

    // Makes room for sequences of so many tokens. Not while others read.
    void reserve(int tokens);

    int window(int layer) const { return attention_[layer].window; }
    // The bias at distance 0, its neighbours around it; null where it is nothing for a sequence of
    // so many tokens.
    const float* bias(int layer, int head, int tokens) const;

    // Cosines and sines of a rotary embedding's angles (Su et al. 2021, arXiv:2104.09864).
    struct Rotary {
        const float* cosines = nullptr;
        const float* sines = nullptr;
        size_t stride = 0;
    };
    // Of a rotary layer; nulls for others.
    Rotary rotary(int layer) const;

  private:
    struct Window {
        int width;
        std::vector<float> bias;
    };
    struct Angles {
        RotarySpeed speed;
        std::vector<float> cosines, sines;
    };
    bool by_head() const { return !buckets_.empty() || !slopes_.empty(); }
    void fill_relative();
    void fill(Angles& angles) const;

    std::vector<LayerAttention> attention_;
    std::vector<int> window_of_, angles_of_;  // of each layer, -1 without
    std::vector<Window> windows_;
    std::vector<Angles> angles_;
    std::vector<float> buckets_, slopes_, relative_;
    int heads_, half_, longest_, capacity_ = 0;
    Order order_;
};

}  // namespace sparsebert
