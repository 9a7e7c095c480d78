// Small encoders with random weights in both number types, texts for them, and everything they
// answer.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "encoder.h"
#include "float_matrix.h"
#include "int8_matrix.h"

namespace sparsebert {

constexpr int kHidden = 36, kWide = 52, kHeads = 3, kLayers = 2, kVocabulary = 29, kLabels = 3;
constexpr int kPositions = 48;

template <typename Model>
Model shaped() {
    Model model;
    model.hidden_size = model.embedding_size = kHidden;
    model.intermediate_size = kWide;
    model.heads = kHeads;
    model.vocabulary = kVocabulary;
    model.positions = kPositions;
    model.types = 2;
    model.layers_attention.resize(kLayers);
    model.head = {HeadInput::kFirstToken, Activation::kTanh, false, kHidden, kLabels};
    return model;
}

// Random weights, kept alive while a model points to them.
class Weights {
  public:
    explicit Weights(uint64_t seed) : random_(seed) {}

    Int8Weight int8(int rows, int columns, Int8Layout layout) {
        Int8Form form{layout};
        if (layout == Int8Layout::kPairs) form.n = 1, form.m = 2;
        Int8Matrix& matrix = *int8_.emplace_back(
            std::make_unique<Int8Matrix>(form, rows, columns, Contents::kRandom, random_));
        const float scale = 0.02f / std::sqrt(static_cast<float>(columns));
        for (int row = 0; row < rows; ++row) {
            matrix.scales[row] = scale;
            matrix.bias[row] = random_.normal();
        }
        return matrix.weight();
    }
    Matrix floats(int rows, int columns, Layout layout) {
        FloatForm form{layout, false};
        if (layout == Layout::kPairs) form.n = 1, form.m = 2;
        const float scale = 1.0f / std::sqrt(static_cast<float>(columns));
        return floats_
            .emplace_back(std::make_unique<FloatMatrix>(form, rows, columns, scale, random_))
            ->matrix();
    }
    const float* vector(int count, float mean = 0.0f) {
        // Padded with zeros to a multiple of 16, as int8 models require.
        Guarded<float>& values = vectors_.emplace_back(round_up(count, 16));
        for (int i = 0; i < count; ++i) values[i] = mean + 0.3f * random_.normal();
        return values.data();
    }
    Norm norm() { return {vector(kHidden, 1.0f), vector(kHidden)}; }
    Int8Norm int8_norm() {
        const Norm two = norm();
        return {two.gamma, two.beta, kHidden, 1e-12f};
    }
    Dense dense(int rows, int columns, Layout layout) {
        const Matrix matrix = floats(rows, columns, layout);
        return {matrix, vector(rows)};
    }

  private:
    Random random_;
    std::vector<std::unique_ptr<Int8Matrix>> int8_;
    std::vector<std::unique_ptr<FloatMatrix>> floats_;
    std::vector<Guarded<float>> vectors_;
};

// Embeddings and layers; `table`, `pruned` and `norm` make their weights.
template <typename Model, typename Table, typename Pruned, typename Norm>
Model encoder_of(Table table, Pruned pruned, Norm norm) {
    Model model = shaped<Model>();
    model.words = table(kVocabulary);
    model.position_table = table(kPositions);
    model.type_table = table(2);
    model.embedding_norm = norm();
    for (int l = 0; l < kLayers; ++l) {
        auto& layer = model.layers.emplace_back();
        layer.query = pruned(kHidden, kHidden);
        layer.key = pruned(kHidden, kHidden);
        layer.value = pruned(kHidden, kHidden);
        layer.attention_output = pruned(kHidden, kHidden);
        layer.attention_norm = norm();
        layer.intermediate = pruned(kWide, kHidden);
        layer.output = pruned(kHidden, kWide);
        layer.output_norm = norm();
    }
    return model;
}

inline Int8Model int8_model(Weights& weights) {
    Int8Model model = encoder_of<Int8Model>(
        [&](int rows) { return weights.int8(rows, kHidden, Int8Layout::kTable); },
        [&](int rows, int columns) { return weights.int8(rows, columns, Int8Layout::kPairs); },
        [&] { return weights.int8_norm(); });
    model.head_dense = weights.int8(kHidden, kHidden, Int8Layout::kDense);
    model.last = static_cast<const float*>(weights.floats(kLabels, kHidden, Layout::kDense).values);
    model.last_bias = weights.vector(kLabels);
    return model;
}

inline Model float_model(Weights& weights) {
    Model model = encoder_of<Model>(
        [&](int rows) { return weights.floats(rows, kHidden, Layout::kDense); },
        [&](int rows, int columns) { return weights.dense(rows, columns, Layout::kPairs); },
        [&] { return weights.norm(); });
    model.head_dense = weights.dense(kHidden, kHidden, Layout::kDense);
    model.last = weights.dense(kLabels, kHidden, Layout::kDense);
    return model;
}

// With a head that scores the vocabulary for each token.
inline Int8Model masked_lm(Int8Model model, Weights& weights) {
    model.head = {HeadInput::kEachToken, Activation::kGelu, true, kHidden, kVocabulary};
    model.head_norm = weights.int8_norm();
    model.decoder = weights.int8(kVocabulary, kHidden, Int8Layout::kTable);
    model.last = model.last_bias = nullptr;
    return model;
}

struct Texts {
    Texts(const std::vector<int>& lengths, uint64_t seed) : offsets{0} {
        Random random(seed);
        for (const int length : lengths) offsets.push_back(offsets.back() + length);
        for (int i = 0; i < offsets.back(); ++i) {
            ids.push_back(random.between(0, kVocabulary - 1));
            types.push_back(random.between(0, 1));
        }
    }
    Batch batch() const {
        return {ids.data(), types.data(), offsets.data(), static_cast<int>(offsets.size()) - 1};
    }
    std::vector<int32_t> ids, types, offsets;
};

inline std::vector<float> answers(Encoder& encoder, const Texts& texts) {
    const Batch batch = texts.batch();
    const HeadShape& head = encoder.shape().head;
    const int rows = head.per_sequence() ? batch.sequences : batch.tokens();
    std::vector<float> logits(static_cast<size_t>(rows) * head.outputs);
    std::vector<float> hidden(static_cast<size_t>(batch.tokens()) * kHidden);
    std::vector<float> pooled(static_cast<size_t>(batch.sequences) * kHidden);
    encoder.head(batch, logits.data());
    encoder.hidden(batch, hidden.data());
    encoder.pooled(batch, Pooling::kMean, true, pooled.data());
    logits.insert(logits.end(), hidden.begin(), hidden.end());
    logits.insert(logits.end(), pooled.begin(), pooled.end());
    for (const float value : logits)
        if (!std::isfinite(value)) fail("an encoder gives ", value);
    return logits;
}

inline void expect_same(const std::string& name, const std::vector<float>& got,
                        const std::vector<float>& want) {
    if (got.size() != want.size() ||
        std::memcmp(got.data(), want.data(), sizeof(float) * got.size()))
        fail(name, ": results differ from those expected");
}

}  // namespace sparsebert
