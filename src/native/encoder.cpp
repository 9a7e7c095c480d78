#include "encoder.h"

#include <stdexcept>
#include <utility>

#include "pass.h"

namespace sparsebert {
namespace {

// Tokens that go through the encoder together. More would only push activations out of the caches.
constexpr int kMicroBatchTokens = 1024;

std::string outside(const char* what, int value, int token, int limit) {
    return std::string(what) + " " + std::to_string(value) + " at position " +
           std::to_string(token) + " is outside 0 to " + std::to_string(limit - 1) + ".";
}

}  // namespace

Encoder::Encoder(Model model, const Kernels& kernels, int threads)
    : model_(std::move(model)), kernels_(kernels), pool_(threads) {}

void Encoder::check(const Batch& batch) const {
    if (batch.offsets[0] != 0) throw std::invalid_argument("offsets must begin with 0.");
    for (int s = 0; s < batch.sequences; ++s) {
        const long length = static_cast<long>(batch.offsets[s + 1]) - batch.offsets[s];
        if (length < 1)
            throw std::invalid_argument("sequence " + std::to_string(s) + " holds no token.");
        if (length > model_.positions)
            throw std::invalid_argument(
                "sequence " + std::to_string(s) + " has " + std::to_string(length) +
                " tokens; this model's longest is " + std::to_string(model_.positions) + ".");
    }
    for (int i = 0; i < batch.tokens(); ++i) {
        if (batch.ids[i] < 0 || batch.ids[i] >= model_.vocabulary)
            throw std::invalid_argument(outside("token id", batch.ids[i], i, model_.vocabulary));
        if (batch.types[i] < 0 || batch.types[i] >= model_.types)
            throw std::invalid_argument(outside("token type", batch.types[i], i, model_.types));
    }
}

// Cuts the batch into micro-batches of whole sequences and runs each on all threads;
// finish(pass, first sequence, first token) then writes the micro-batch's results.
template <typename Finish>
void Encoder::run(const Batch& batch, Finish finish) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<int32_t> offsets;
    for (int first = 0; first < batch.sequences;) {
        const int32_t start = batch.offsets[first];
        int end = first + 1;
        while (end < batch.sequences && batch.offsets[end + 1] - start <= kMicroBatchTokens) ++end;
        offsets.clear();
        for (int s = first; s <= end; ++s) offsets.push_back(batch.offsets[s] - start);
        Shared shared(model_, kernels_, pool_, workspace_,
                      {batch.ids + start, batch.types + start, offsets.data(), end - first});
        pool_.run([&](int thread) {
            Pass pass(shared, thread);
            pass.encode();
            finish(pass, first, start);
        });
        first = end;
    }
}

void Encoder::hidden(const Batch& batch, float* out) {
    check(batch);
    run(batch, [&](Pass& pass, int, int token) {
        pass.write_hidden(out + static_cast<size_t>(token) * model_.hidden_size);
    });
}

void Encoder::pooled(const Batch& batch, Pooling pooling, bool normalize, float* out) {
    check(batch);
    run(batch, [&](Pass& pass, int sequence, int) {
        pass.write_pooled(pooling, normalize,
                          out + static_cast<size_t>(sequence) * model_.hidden_size);
    });
}

void Encoder::head(const Batch& batch, float* out) {
    check(batch);
    const size_t outputs = model_.classifier.weight.rows;
    run(batch, [&](Pass& pass, int sequence, int token) {
        pass.write_head(out + outputs * (model_.head == Head::kSequence ? sequence : token));
    });
}

}  // namespace sparsebert
