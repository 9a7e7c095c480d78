// ThreadPool and whole encoders under many callers. Of use above all under ThreadSanitizer.
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "encoder.h"
#include "float_matrix.h"
#include "int8_matrix.h"
#include "thread_pool.h"

namespace sparsebert {
namespace {

// Each thread writes, all meet, and each reads what the others wrote: without order, a race.
void check_pool(int threads) {
    ThreadPool pool(threads);
    expect_equal(pool.threads(), threads, "threads of a pool");
    std::vector<int> written(threads);
    for (int run = 1; run <= 20; ++run) {
        std::atomic<int> wrong{0}, calls{0};
        pool.run([&](int thread) {
            ++calls;
            for (int phase = 1; phase <= 10; ++phase) {
                written[thread] = run * 100 + phase;
                pool.barrier();
                for (const int other : written) wrong += other != run * 100 + phase;
                pool.barrier();
            }
        });
        expect_equal(calls.load(), threads, "threads that a run reached");
        expect_equal(wrong.load(), 0, "threads that passed a barrier early");
        // What they wrote is the caller's to read, and to write before the next run.
        for (const int value : written) expect_equal(value, run * 100 + 10, "what a run wrote");
        for (int& value : written) value = 0;
    }
}

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

// Random weights, kept while a model points to them.
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
        // Padded with zeros to 16, as int8 models want them.
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

template <typename Layer, typename Linear, typename Norm>
void add_layers(std::vector<Layer>& layers, Linear linear, Norm norm) {
    for (int l = 0; l < kLayers; ++l) {
        Layer& layer = layers.emplace_back();
        layer.query = linear(kHidden, kHidden);
        layer.key = linear(kHidden, kHidden);
        layer.value = linear(kHidden, kHidden);
        layer.attention_output = linear(kHidden, kHidden);
        layer.attention_norm = norm();
        layer.intermediate = linear(kWide, kHidden);
        layer.output = linear(kHidden, kWide);
        layer.output_norm = norm();
    }
}

Int8Model int8_model(Weights& weights) {
    Int8Model model = shaped<Int8Model>();
    model.words = weights.int8(kVocabulary, kHidden, Int8Layout::kTable);
    model.position_table = weights.int8(kPositions, kHidden, Int8Layout::kTable);
    model.type_table = weights.int8(2, kHidden, Int8Layout::kTable);
    model.embedding_norm = weights.int8_norm();
    const auto layer = [&](int rows, int columns) {
        return weights.int8(rows, columns, Int8Layout::kPairs);
    };
    add_layers(model.layers, layer, [&] { return weights.int8_norm(); });
    model.head_dense = weights.int8(kHidden, kHidden, Int8Layout::kDense);
    model.last = static_cast<const float*>(weights.floats(kLabels, kHidden, Layout::kDense).values);
    model.last_bias = weights.vector(kLabels);
    return model;
}

Model float_model(Weights& weights) {
    Model model = shaped<Model>();
    model.words = weights.floats(kVocabulary, kHidden, Layout::kDense);
    model.position_table = weights.floats(kPositions, kHidden, Layout::kDense);
    model.type_table = weights.floats(2, kHidden, Layout::kDense);
    model.embedding_norm = weights.norm();
    const auto layer = [&](int rows, int columns) {
        return weights.dense(rows, columns, Layout::kPairs);
    };
    add_layers(model.layers, layer, [&] { return weights.norm(); });
    model.head_dense = weights.dense(kHidden, kHidden, Layout::kDense);
    model.last = weights.dense(kLabels, kHidden, Layout::kDense);
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

std::vector<float> answers(Encoder& encoder, const Texts& texts) {
    const Batch batch = texts.batch();
    std::vector<float> logits(static_cast<size_t>(batch.sequences) * kLabels);
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

void expect_same(const std::string& name, const std::vector<float>& got,
                 const std::vector<float>& want) {
    if (got.size() != want.size() ||
        std::memcmp(got.data(), want.data(), sizeof(float) * got.size()))
        fail(name, ": other results than alone");
}

// Several callers at once, each with texts of its own, get what they get alone.
void check_callers(const std::string& name, Encoder& encoder) {
    // Few tokens, whose rows threads share; many; many sequences of which some stand across a cut.
    const std::vector<std::vector<int>> lengths = {
        {1}, {7, 3}, {48, 48, 48}, std::vector<int>(30, 9), {47, 1, 2, 45, 33, 17}};
    std::vector<Texts> texts;
    std::vector<std::vector<float>> alone;
    for (size_t i = 0; i < lengths.size(); ++i) {
        texts.emplace_back(lengths[i], i);
        alone.push_back(answers(encoder, texts.back()));
    }
    std::vector<std::string> failures(lengths.size());
    std::vector<std::thread> callers;
    for (size_t i = 0; i < lengths.size(); ++i)
        callers.emplace_back([&, i] {
            try {
                for (int again = 0; again < 2; ++again)
                    expect_same(name + ", caller " + std::to_string(i), answers(encoder, texts[i]),
                                alone[i]);
            } catch (const Failure& failure) {
                failures[i] = failure.what();
            }
        });
    for (std::thread& caller : callers) caller.join();
    for (const std::string& failure : failures)
        if (!failure.empty()) fail(failure);
}

}  // namespace

// On tile registers, where the set has them: the larger of the calls above, not the small ones.
constexpr int kFewestOnTiles = 9;

void test_threads() {
    for (const int threads : {1, 2, 3, 5}) check_pool(threads);
    // The kernels make no difference to threads, save by how long they take.
    for (const std::string& isa : {available_instruction_sets().front(), std::string("portable")}) {
        const InstructionSet& set = select_instruction_set(isa);
        std::vector<float> one_thread;
        const Texts texts({40, 1, 48, 33, 5, 21}, 7);
        for (const int threads : {1, 2, 3}) {
            const std::string name = isa + ", threads " + std::to_string(threads);
            Weights weights(5);
            const auto int8 = make_encoder(int8_model(weights),
                                           {set.int8, set.int8_tiles, kFewestOnTiles, ""}, threads);
            const auto floats = make_encoder(float_model(weights), *set.kernels, threads);
            check_callers(name + ", int8", *int8);
            check_callers(name + ", floats", *floats);
            const std::vector<float> found = answers(*int8, texts);
            if (threads == 1) one_thread = found;
            expect_same(name + ", int8, against one thread", found, one_thread);
        }
    }
}

}  // namespace sparsebert
