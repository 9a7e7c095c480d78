// How attention takes positions into account: relative biases, windows and rotary embeddings.
#pragma once

#include <vector>

#include "shape.h"

namespace sparsebert {

// The score of query i and key j gets a bias that depends on their distance: for each head, MPNet's
// learned one or ALiBi's, -slope |i - j| (Press et al. 2021, arXiv:2108.12409); or that of a
// window, 0 inside and so low outside that the probability is 0. The tables grow with the longest
// sequence seen, because models allow thousands of tokens and few texts have that many.
class Positions {
  public:
    // kLanesAreQueries stores biases by i - j and angles as [half a head][tokens]; kLanesAreKeys
    // stores biases by j - i, multiplied by log2 e, and angles as [tokens][half a head].
    enum class Order { kLanesAreQueries, kLanesAreKeys };

    Positions(const ModelShape& shape, Order order);

    // Makes room for sequences of `tokens` tokens. Must not run while other threads read.
    void reserve(int tokens);

    int window(int layer) const { return attention_[layer].window; }
    // Points to the bias at distance 0, with negative distances before it; null if a sequence of
    // `tokens` tokens has none.
    const float* bias(int layer, int head, int tokens) const;

    // Cosines and sines of a rotary embedding's angles (Su et al. 2021, arXiv:2104.09864).
    struct Rotary {
        const float* cosines = nullptr;
        const float* sines = nullptr;
        size_t stride = 0;
    };
    // Null pointers if the layer is not rotary.
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
    std::vector<int> window_of_, angles_of_;  // of each layer, -1 if none
    std::vector<Window> windows_;
    std::vector<Angles> angles_;
    std::vector<float> buckets_, slopes_, relative_;
    int heads_, half_, longest_, capacity_ = 0;
    Order order_;
};

}  // namespace sparsebert
