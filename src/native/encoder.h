// A BERT encoder with its head, on ragged batches: sequences laid end to end, no padding.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "thread_pool.h"
#include "workspace.h"

namespace sparsebert {

enum class Head { kEncoder, kSequence, kQuestion, kToken, kMaskedLm };
enum class Pooling { kCls, kMean, kMeanSqrtLength, kMax };

struct Norm {
    const float* gamma = nullptr;
    const float* beta = nullptr;
};

struct Dense {  // a linear layer
    Matrix weight;
    const float* bias = nullptr;
};

struct Layer {
    Dense query, key, value, attention_output;
    Norm attention_norm;
    Dense intermediate, output;
    Norm output_norm;
};

struct Model {
    int hidden_size = 0, intermediate_size = 0, heads = 0;
    int vocabulary = 0, positions = 0, types = 0;
    float epsilon = 1e-12f;
    Activation activation = Activation::kGelu;
    Matrix words, position_table, type_table;  // dense tables, a row for each id
    Norm embedding_norm;
    std::vector<Layer> layers;
    Head head = Head::kEncoder;
    Dense pooler;     // sequence head: tanh(pooler(cls)), where the model has one
    Dense transform;  // masked-LM head: LayerNorm(activation(transform(x)))
    Norm transform_norm;
    Dense classifier;  // the head's last layer
};

// Token ids of a batch, end to end; sequence s is [offsets[s], offsets[s + 1]).
struct Batch {
    const int32_t* ids;
    const int32_t* types;
    const int32_t* offsets;
    int sequences;

    int tokens() const { return offsets[sequences]; }
};

class Encoder {
  public:
    Encoder(Model model, const Kernels& kernels, int threads);

    const Kernels& kernels() const { return kernels_; }
    int threads() const { return pool_.threads(); }
    const Model& model() const { return model_; }

    // Each throws std::invalid_argument for ids, types or lengths outside the model's tables.
    // All may be called from many threads; runs take turns.
    void hidden(const Batch& batch, float* out);  // [tokens][hidden]
    void pooled(const Batch& batch, Pooling pooling, bool normalize,
                float* out);                    // [batch][hidden]
    void head(const Batch& batch, float* out);  // [batch or tokens][outputs of the classifier]

  private:
    void check(const Batch& batch) const;
    template <typename Finish>
    void run(const Batch& batch, Finish finish);

    Model model_;
    const Kernels& kernels_;
    ThreadPool pool_;
    std::mutex mutex_;
    Workspace workspace_;
};

}  // namespace sparsebert
