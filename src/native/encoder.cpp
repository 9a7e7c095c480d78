#include "encoder.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "distances.h"
#include "int8/distances.h"
#include "int8/pass.h"
#include "pass.h"
#include "per_process.h"
#include "pooling.h"
#include "positions.h"

namespace sparsebert {
namespace {

// Tokens that pass through the encoder together. More would only evict activations from the caches.
constexpr int kMicroBatchTokens = 1024;

std::string outside(const char* what, int value, int token, int limit) {
    return std::string(what) + " " + std::to_string(value) + " at index " + std::to_string(token) +
           " of the batch is not in the range 0 to " + std::to_string(limit - 1) + ".";
}

void check(const ModelShape& shape, int most_tokens, const Batch& batch) {
    most_tokens = std::min(most_tokens, shape.longest());
    if (batch.offsets[0] != 0) throw std::invalid_argument("offsets must begin with 0.");
    for (int s = 0; s < batch.sequences; ++s) {
        const long length = static_cast<long>(batch.offsets[s + 1]) - batch.offsets[s];
        if (length < 1)
            throw std::invalid_argument("sequence " + std::to_string(s) + " has no tokens.");
        if (length > most_tokens)
            throw std::invalid_argument(
                "sequence " + std::to_string(s) + " has " + std::to_string(length) +
                " tokens; this model takes at most " + std::to_string(most_tokens) + ".");
        if (batch.keys_of(s) < 1 || batch.keys_of(s) > length)
            throw std::invalid_argument("sequence " + std::to_string(s) + " has " +
                                        std::to_string(length) + " tokens, so it cannot have " +
                                        std::to_string(batch.keys_of(s)) + " keys.");
        // Tokens further than a layer's window behind the last key would attend to nothing.
        for (const LayerAttention& layer : shape.layers_attention)
            if (length - batch.keys_of(s) > layer.window)
                throw std::invalid_argument("sequence " + std::to_string(s) +
                                            " has tokens whose window contains none of its keys.");
    }
    for (int i = 0; i < batch.tokens(); ++i) {
        if (batch.ids[i] < 0 || batch.ids[i] >= shape.vocabulary)
            throw std::invalid_argument(outside("token id", batch.ids[i], i, shape.vocabulary));
        if (batch.types[i] < 0 || batch.types[i] >= shape.types)
            throw std::invalid_argument(outside("token type", batch.types[i], i, shape.types));
    }
}

// Finds each token's row of the position table. RoBERTa does not count padding tokens: their id is
// the row before the first position, which they also get. Returns the length of the longest
// sequence.
int find_position_ids(const ModelShape& shape, const Batch& batch,
                      std::vector<int32_t>& position_ids) {
    position_ids.clear();
    int longest = 0;
    for (int s = 0; s < batch.sequences; ++s) {
        int32_t next = shape.first_position;
        for (int i = batch.offsets[s]; i < batch.offsets[s + 1]; ++i)
            position_ids.push_back(batch.ids[i] == shape.first_position - 1 ? batch.ids[i]
                                                                            : next++);
        longest = std::max(longest, batch.offsets[s + 1] - batch.offsets[s]);
    }
    return longest;
}

// What differs between number types: the model, the kernels, and how a micro-batch is computed.
struct FloatNetwork {
    using Model = sparsebert::Model;
    using Workspace = sparsebert::Workspace;
    using Shared = sparsebert::Shared;
    using Pass = sparsebert::Pass;
    using Kernels = const sparsebert::Kernels;
    using Distances = sparsebert::Distances;
    static constexpr auto kOrder = Positions::Order::kLanesAreQueries;
    static constexpr int kMostTokens = std::numeric_limits<int>::max();
};

struct Int8Network {
    using Model = Int8Model;
    using Workspace = Int8Workspace;
    using Shared = Int8Shared;
    using Pass = Int8Pass;
    using Kernels = const Int8Choice;
    using Distances = Int8Distances;
    static constexpr auto kOrder = Positions::Order::kLanesAreKeys;
    // Attention sums a product of at most 255 x 127 for each token, in int32.
    static constexpr int kMostTokens = 65'536;
};

template <typename Network>
class EncoderOf : public Encoder {
  public:
    EncoderOf(typename Network::Model model, typename Network::Kernels kernels, int threads)
        : model_(std::move(model)),
          kernels_(kernels),
          threads_(threads),
          state_([this] { return std::make_unique<State>(model_, kernels_, threads_); }) {}

    int threads() const override { return threads_; }
    const ModelShape& shape() const override { return model_; }

    void hidden(const Batch& batch, float* out) override {
        run(batch, Reads::kEveryToken, [&](auto& pass, int, int token) {
            pass.write_hidden(out + static_cast<size_t>(token) * model_.hidden_size);
        });
    }

    void pooled(const Batch& batch, Pooling pooling, bool normalize, float* out) override {
        run(batch, reads_of(pooling), [&](auto& pass, int sequence, int) {
            pass.write_pooled(pooling, normalize,
                              out + static_cast<size_t>(sequence) * model_.hidden_size);
        });
    }

    void head(const Batch& batch, float* out) override {
        run(batch, model_.head.reads(), [&](auto& pass, int sequence, int token) {
            const size_t row = model_.head.per_sequence() ? sequence : token;
            pass.write_head(out + row * model_.head.outputs);
        });
    }

  private:
    // State that runs change.
    struct State {
        State(const typename Network::Model& model, typename Network::Kernels& kernels, int threads)
            : positions(model, Network::kOrder), distances(model, kernels), pool(threads) {}

        std::mutex mutex;
        Positions positions;
        typename Network::Distances distances;
        ThreadPool pool;
        typename Network::Workspace workspace;
    };

    // Cuts the batch into micro-batches of whole sequences and runs each on all threads;
    // finish(pass, first sequence, first token) then writes the micro-batch's results.
    template <typename Finish>
    void run(const Batch& batch, Reads reads, Finish finish) {
        check(model_, Network::kMostTokens, batch);
        State& state = state_.get();
        std::lock_guard<std::mutex> lock(state.mutex);
        std::vector<int32_t> offsets, position_ids;
        for (int first = 0; first < batch.sequences;) {
            const int32_t start = batch.offsets[first];
            int end = first + 1;
            while (end < batch.sequences && batch.offsets[end + 1] - start <= kMicroBatchTokens)
                ++end;
            offsets.clear();
            for (int s = first; s <= end; ++s) offsets.push_back(batch.offsets[s] - start);
            Batch micro{batch.ids + start, batch.types + start, offsets.data(), end - first};
            const int longest = find_position_ids(model_, micro, position_ids);
            state.positions.reserve(longest);
            state.distances.reserve(longest, state.pool);
            micro.position_ids = position_ids.data();
            if (batch.keys) micro.keys = batch.keys + first;
            typename Network::Shared shared(model_, kernels_, state.pool, state.workspace, micro,
                                            reads, state.positions, state.distances);
            state.pool.run([&](int thread) {
                typename Network::Pass pass(shared, thread);
                pass.encode();
                finish(pass, first, start);
            });
            first = end;
        }
    }

    typename Network::Model model_;
    typename Network::Kernels kernels_;
    int threads_;
    PerProcess<State> state_;
};

}  // namespace

std::unique_ptr<Encoder> make_encoder(Model model, const Kernels& kernels, int threads) {
    return std::make_unique<EncoderOf<FloatNetwork>>(std::move(model), kernels, threads);
}

std::unique_ptr<Encoder> make_encoder(Int8Model model, Int8Choice kernels, int threads) {
    return std::make_unique<EncoderOf<Int8Network>>(std::move(model), std::move(kernels), threads);
}

}  // namespace sparsebert
