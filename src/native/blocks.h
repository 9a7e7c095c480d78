// How a run of tokens is cut into blocks, and where each block's activations are stored.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/kernels.h"

namespace sparsebert {

// Cuts tokens [0, `tokens`) into blocks of nearly equal width, each a multiple of kLaneTokens and
// at most `block_tokens` wide. Activations of F features take F x padded() floats; block b starts
// at F x start(b) and is [F][width(b)].
class Blocks {
  public:
    // If there are enough tokens, the number of blocks is a multiple of `multiple`, so that as many
    // threads share the blocks evenly.
    explicit Blocks(int tokens, int multiple = 1, int block_tokens = kBlockTokens) {
        const int vectors = (tokens + kLaneTokens - 1) / kLaneTokens;
        const int most = block_tokens / kLaneTokens;
        int count = (vectors + most - 1) / most;
        const int even = (count + multiple - 1) / multiple * multiple;
        if (count > 1 && even <= vectors) count = even;
        starts_.reserve(count + 1);
        for (int b = 0; b <= count; ++b)
            starts_.push_back(static_cast<int>(static_cast<long>(vectors) * b / count) *
                              kLaneTokens);
    }

    int count() const { return static_cast<int>(starts_.size()) - 1; }
    int start(int block) const { return starts_[block]; }
    int width(int block) const { return starts_[block + 1] - starts_[block]; }
    int padded() const { return starts_.back(); }
    int find(int token) const {
        return static_cast<int>(std::upper_bound(starts_.begin(), starts_.end(), token) -
                                starts_.begin()) -
               1;
    }

    template <typename Float>
    Float* at(Float* activations, int features, int block) const {
        return activations + static_cast<size_t>(features) * starts_[block];
    }

    // Calls visit(block, lane, token, count) for the part of tokens [begin, end) in each block.
    template <typename Visit>
    void each_piece(int begin, int end, Visit visit) const {
        for (int token = begin; token < end;) {
            const int block = find(token);
            const int count = std::min(end, starts_[block + 1]) - token;
            visit(block, token - starts_[block], token, count);
            token += count;
        }
    }

  private:
    std::vector<int> starts_;
};

}  // namespace sparsebert
