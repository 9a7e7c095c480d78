// Whole encoders of any shape, in every layout, on every instruction set: results agree with those
// of the portable set except for rounding, and a sequence's results do not depend on the other
// sequences of its batch or on threads (in int8, to the bit). Weights that are not finite neither
// crash nor give finite results, and invalid batches are refused.
#include "encoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "float_matrix.h"
#include "int8_matrix.h"
#include "pooling.h"
#include "shared_rows.h"

namespace sparsebert {
namespace {

constexpr int kFewestOnTiles = 9;  // so that small calls run without tiles
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Random weights, kept alive while a model points to them. `odd`, if not 0, replaces some of the
// numbers.
class Weights {
  public:
    Weights(Random& random, float odd) : random_(random), odd_(odd) {}

    const float* vector(int count, float mean = 0.0f) {
        Guarded<float>& values = vectors_.emplace_back(round_up(count, 16));  // as int8 requires
        for (int i = 0; i < count; ++i) values[i] = number(mean + 0.2f * random_.normal());
        return values.data();
    }
    Matrix floats(int rows, int columns, bool table = false) {
        FloatForm form = kFloatForms[random_.word() % kFloatForms.size()];
        if (table || form.fitting(columns) != columns) form = {Layout::kDense, form.half};
        const float scale = 1.0f / std::sqrt(static_cast<float>(columns));
        FloatMatrix& matrix = *floats_.emplace_back(
            std::make_unique<FloatMatrix>(form, rows, columns, scale, random_));
        if (odd_ != 0.0f && matrix.singles.size())
            matrix.singles[random_.word() % matrix.singles.size()] = odd_;
        return matrix.matrix();
    }
    Int8Weight int8(int rows, int columns, bool table = false) {
        Int8Form form = kInt8Forms[random_.word() % kInt8Forms.size()];
        const bool fits = form.layout != Int8Layout::kTable && form.fitting(columns) == columns;
        if (table)
            form = {Int8Layout::kTable};
        else if (!fits)
            form = {Int8Layout::kDense};
        Int8Matrix& matrix = *int8_.emplace_back(
            std::make_unique<Int8Matrix>(form, rows, columns, Contents::kRandom, random_));
        const float scale = 0.02f / std::sqrt(static_cast<float>(columns));
        for (int row = 0; row < rows; ++row) {
            matrix.scales[row] = std::abs(number(scale));
            matrix.bias[row] = number(0.2f * random_.normal());
        }
        return matrix.weight();
    }

  private:
    float number(float usual) { return odd_ != 0.0f && random_.chance(0.05) ? odd_ : usual; }

    Random& random_;
    const float odd_;
    std::vector<std::unique_ptr<FloatMatrix>> floats_;
    std::vector<std::unique_ptr<Int8Matrix>> int8_;
    std::vector<Guarded<float>> vectors_;
};

// A random architecture. The hidden size is never so small that LayerNorm would only amplify
// rounding errors.
ModelShape any_shape(Random& random) {
    ModelShape shape;
    shape.heads = random.between(1, 4);
    const int head_size = random.between(8, 40);
    shape.hidden_size = shape.heads * head_size;
    shape.embedding_size = random.chance(0.8) ? shape.hidden_size : random.between(8, 50);
    shape.intermediate_size = random.between(1, 150);
    shape.vocabulary = random.between(2, 40);
    shape.types = random.between(1, 3);
    shape.first_position = random.pick({0, 0, 2});
    shape.positions = shape.first_position + random.between(1, 70);
    shape.epsilon = random.pick({1e-12f, 1e-5f});
    shape.activation = random.pick({Activation::kGelu, Activation::kGeluTanh, Activation::kRelu,
                                    Activation::kSilu, Activation::kTanh});
    shape.norm_first = random.chance(0.3);
    shape.fused_attention = random.chance(0.3);
    shape.gated = random.chance(0.3);
    shape.fused_gate = shape.gated && random.chance(0.5);
    const bool rotary = head_size % 2 == 0 && random.chance(0.3);
    for (int layers = random.between(1, 2); layers > 0; --layers) {
        LayerAttention attention;
        if (random.chance(0.3)) attention.window = random.between(0, 20);
        if (rotary) attention.rotary = {random.pick({100.0f, 10000.0f}), 1.0f};
        shape.layers_attention.push_back(attention);
    }
    // Terms of scores that depend on distance, which cannot be combined with windows.
    Disentangled& of = shape.disentangled;
    switch (random.between(0, 6)) {
        case 0:
            for (int i = 0; i < 32 * shape.heads; ++i)
                shape.relative_bias.push_back(random.normal());
            break;
        case 1:
            for (int i = 0; i < shape.heads; ++i)
                shape.slopes.push_back(random.uniform(0.0f, 1.0f));
            break;
        case 2:
            shape.fused_attention = false;
            of.span = random.between(2, 20);
            of.buckets = random.chance(0.5) ? of.span : 0;
            of.farthest = of.span + random.between(1, 60);
            of.keys = random.chance(0.7);
            of.queries = !of.keys || random.chance(0.7);
            of.terms = 1 + of.keys + of.queries;
            for (int i = 0; i < 2 * of.span * shape.hidden_size; ++i)
                of.embeddings.push_back(random.normal());
    }
    if (!shape.relative_bias.empty() || !shape.slopes.empty() || of.span)
        for (LayerAttention& layer : shape.layers_attention) layer.window = kEverything;
    HeadShape& head = shape.head;
    head.input = random.pick({HeadInput::kNone, HeadInput::kFirstToken, HeadInput::kMean,
                              HeadInput::kEachToken, HeadInput::kEachToken});
    head.decoder = head.input == HeadInput::kEachToken && random.chance(0.5);
    head.width = head.decoder ? shape.embedding_size : shape.hidden_size;
    head.outputs = head.decoder ? shape.vocabulary : random.between(1, 5);
    head.activation = random.pick({Activation::kNone, Activation::kTanh, Activation::kGelu});
    return shape;
}

// Fills in what both number types have, from table(rows), layer(rows, columns) and norm(features)
// of `from`.
template <typename Model, typename From>
void fill(Model& model, Random& random, From& from) {
    const int hidden = model.hidden_size, embedded = model.embedding_size;
    model.words = from.table(model.vocabulary);
    if (model.layers_attention[0].rotary.theta == 0)
        model.position_table = from.table(model.positions);
    if (random.chance(0.7)) model.type_table = from.table(model.types);
    if (random.chance(0.1)) model.task_table = from.table(2);
    model.embedding_norm = from.norm(embedded);
    if (embedded != hidden) model.projection = from.layer(hidden, embedded);
    for (size_t l = 0; l < model.layers_attention.size(); ++l) {
        auto& layer = model.layers.emplace_back();
        layer.query = from.layer(model.fused_attention ? 3 * hidden : hidden, hidden);
        if (!model.fused_attention) {
            layer.key = from.layer(hidden, hidden);
            layer.value = from.layer(hidden, hidden);
        }
        layer.attention_output = from.layer(hidden, hidden);
        if (!model.norm_first || l > 0) layer.attention_norm = from.norm(hidden);
        const int wide = model.intermediate_size;
        const bool two = model.gated && !model.fused_gate;
        if (two) layer.gate = from.layer(wide, hidden);
        layer.intermediate = from.layer(two ? wide : model.intermediate_rows(), hidden);
        layer.output = from.layer(hidden, wide);
        layer.output_norm = from.norm(hidden);
    }
    if (model.norm_first) model.final_norm = from.norm(hidden);
    if (model.head.input == HeadInput::kNone) return;
    if (model.head.decoder || random.chance(0.6))
        model.head_dense = from.layer(model.head.width, hidden);
    if (random.chance(0.4)) model.head_norm = from.norm(model.head.width);
}

struct FloatParts {
    Matrix table(int rows) { return weights.floats(rows, model.embedding_size, true); }
    Dense layer(int rows, int columns) {
        const Matrix weight = weights.floats(rows, columns);
        return {weight, weights.vector(rows)};
    }
    Norm norm(int features) { return {weights.vector(features, 1.0f), weights.vector(features)}; }

    Model& model;
    Weights& weights;
};

struct Int8Parts {
    Int8Weight table(int rows) { return weights.int8(rows, model.embedding_size, true); }
    Int8Weight layer(int rows, int columns) {
        const Int8Weight weight = weights.int8(rows, columns);
        if (weight.layout == Int8Layout::kSharedPairs)
            model.widest_shared = std::max(model.widest_shared, columns);
        return weight;
    }
    Int8Norm norm(int features) {
        const float* gamma = weights.vector(features, 1.0f);
        return {gamma, weights.vector(features), features, model.epsilon};
    }

    Int8Model& model;
    Weights& weights;
};

Model float_model(const ModelShape& shape, Random& random, Weights& weights, int block_tokens) {
    Model model;
    static_cast<ModelShape&>(model) = shape;
    FloatParts parts{model, weights};
    fill(model, random, parts);
    if (shape.head.decoder)
        model.last.weight = model.words;
    else if (shape.head.input != HeadInput::kNone)
        model.last = parts.layer(shape.head.outputs, shape.head.width);
    if (shape.head.decoder) model.last.bias = weights.vector(shape.vocabulary);
    const auto needs = [&](const Dense& layer) {
        if (layer.weight.values)
            model.linear_scratch_floats = std::max(
                model.linear_scratch_floats, linear_scratch_floats(layer.weight, block_tokens));
    };
    for (const Layer& l : model.layers)
        for (const Dense* each :
             {&l.query, &l.key, &l.value, &l.attention_output, &l.gate, &l.intermediate, &l.output})
            needs(*each);
    for (const Dense* each : {&model.projection, &model.head_dense, &model.last}) needs(*each);
    return model;
}

Int8Model int8_model(const ModelShape& shape, Random& random, Weights& weights) {
    Int8Model model;
    static_cast<ModelShape&>(model) = shape;
    Int8Parts parts{model, weights};
    fill(model, random, parts);
    if (shape.head.decoder) {
        model.decoder = model.words;
    } else if (shape.head.input != HeadInput::kNone) {
        model.last = weights.vector(shape.head.outputs * shape.head.width);
        model.last_bias = weights.vector(shape.head.outputs);
    }
    return model;
}

struct Texts {
    Batch batch() const {
        return {ids.data(), types.data(), offsets.data(), static_cast<int>(offsets.size()) - 1};
    }
    Texts one(int s) const {
        const auto part = [&](const std::vector<int32_t>& of) {
            return std::vector<int32_t>(of.begin() + offsets[s], of.begin() + offsets[s + 1]);
        };
        return {part(ids), part(types), {0, offsets[s + 1] - offsets[s]}};
    }
    std::vector<int32_t> ids, types, offsets;
};

Texts any_texts(const ModelShape& shape, Random& random) {
    Texts texts{{}, {}, {0}};
    for (int left = random.between(1, 4); left > 0; --left)
        texts.offsets.push_back(texts.offsets.back() + random.between(1, shape.longest()));
    for (int i = 0; i < texts.offsets.back(); ++i) {
        texts.ids.push_back(random.between(0, shape.vocabulary - 1));
        texts.types.push_back(random.between(0, shape.types - 1));
    }
    return texts;
}

// An encoder's results, one row per token or sequence.
struct Answers {
    Answers(Encoder& encoder, const Texts& texts, Pooling pooling) {
        const ModelShape& shape = encoder.shape();
        const Batch batch = texts.batch();
        hidden = Guarded<float>(static_cast<size_t>(batch.tokens()) * shape.hidden_size);
        pooled = Guarded<float>(static_cast<size_t>(batch.sequences) * shape.hidden_size);
        const bool has_head = shape.head.input != HeadInput::kNone;
        const int rows = shape.head.per_sequence() ? batch.sequences : batch.tokens();
        head = Guarded<float>(has_head ? static_cast<size_t>(rows) * shape.head.outputs : 0);
        native_calls += has_head ? 3 : 2;
        encoder.hidden(batch, hidden.data());
        encoder.pooled(batch, pooling, true, pooled.data());
        if (has_head) encoder.head(batch, head.data());
    }
    Guarded<float> hidden, pooled, head;
};

// `tolerance` is relative to the largest number; 0 requires equal numbers. The rows of `got` start
// at index `first` of `want`.
void expect_alike(const std::string& what, const Guarded<float>& got, const Guarded<float>& want,
                  size_t first, double tolerance) {
    float largest = 0.0f;
    for (const float value : want) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < got.size(); ++i)
        expect_near(got[i], want[first + i], tolerance * largest, what, ", number ", i);
}

void expect_alike(const std::string& what, const ModelShape& shape, const Answers& got,
                  const Answers& want, int token, int sequence, double tolerance) {
    const auto at = [](int row, int width) { return static_cast<size_t>(row) * width; };
    expect_alike(what + " hidden", got.hidden, want.hidden, at(token, shape.hidden_size),
                 tolerance);
    expect_alike(what + " pooled", got.pooled, want.pooled, at(sequence, shape.hidden_size),
                 tolerance);
    expect_alike(what + " head", got.head, want.head,
                 at(shape.head.per_sequence() ? sequence : token, shape.head.outputs), tolerance);
}

struct Tolerances {
    double sets, batches;
};
// Rounded inputs may fall on either side of a half, which changes results by whole steps.
constexpr Tolerances kFloats = {2e-3, 1e-3}, kInt8 = {0.25, 0.0};

// An invalid batch is refused before anything of it is read.
void check_refused(Encoder& encoder, Texts texts, Random& random) {
    const ModelShape& shape = encoder.shape();
    const int wrong = random.pick(
        {-1, 1 << 20, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()});
    const auto somewhere = [&](std::vector<int32_t>& values) -> int32_t& {
        return values[random.word() % values.size()];
    };
    switch (random.between(0, 3)) {
        case 0:
            somewhere(texts.ids) = wrong;
            break;
        case 1:
            somewhere(texts.types) = wrong;
            break;
        case 2:  // not the last, which Python checks against the number of ids
            if (texts.offsets.size() < 3) return;
            texts.offsets[random.word() % (texts.offsets.size() - 1)] = wrong;
            break;
        default:
            if (texts.offsets.size() < 3) return;
            texts.offsets[1] = texts.offsets[0];
    }
    Guarded<float> out(texts.ids.size() * shape.hidden_size);
    ++native_calls;
    try {
        encoder.hidden(texts.batch(), out.data());
    } catch (const std::invalid_argument&) {
        return;
    }
    fail("an invalid batch was accepted");
}

// An encoder and the memory that its weights point to.
struct Built {
    Built(const ModelShape& shape, const Random& drawn, float odd, bool int8,
          const InstructionSet& set, int threads)
        : contents(drawn), weights(contents, odd) {
        if (int8)
            encoder = make_encoder(int8_model(shape, contents, weights),
                                   {set.int8, set.int8_tiles, kFewestOnTiles, ""}, threads);
        else
            encoder = make_encoder(float_model(shape, contents, weights, set.kernels->block_tokens),
                                   *set.kernels, threads);
    }

    Random contents;
    Weights weights;
    std::unique_ptr<Encoder> encoder;
};

// If only first tokens are read, no others pass the last layer; their vectors stay the same.
void expect_first_tokens(const std::string& what, const ModelShape& shape, const Texts& texts,
                         const Answers& found, double tolerance) {
    for (int s = 0; s < texts.batch().sequences; ++s) {
        const size_t size = shape.hidden_size;
        Guarded<float> first(size);
        std::copy_n(found.hidden.data() + texts.offsets[s] * size, size, first.data());
        scale_pooled(first.data(), shape.hidden_size, 1, Pooling::kCls, true);
        expect_alike(what + " first token", first, found.pooled, s * size, tolerance);
    }
}

// Compares the results on one instruction set with those of the portable set, of several threads,
// and of each sequence alone.
void check_answers(const ModelShape& shape, const Texts& texts, Pooling pooling, bool int8,
                   const InstructionSet& set, const Random& contents) {
    const Tolerances tolerances = int8 ? kInt8 : kFloats;
    const std::string what = set.name + std::string(int8 ? " int8" : " floats");
    const Built one(shape, contents, 0.0f, int8, set, 1);
    const Answers found(*one.encoder, texts, pooling);
    if (pooling == Pooling::kCls) {
        // With a window, one query reads other tiles of keys than several queries do.
        const bool windowed =
            std::any_of(shape.layers_attention.begin(), shape.layers_attention.end(),
                        [](const auto& layer) { return layer.window != kEverything; });
        expect_first_tokens(what, shape, texts, found,
                            windowed ? tolerances.sets : tolerances.batches);
    }
    {
        const Built plain(shape, contents, 0.0f, int8, select_instruction_set("portable"), 1);
        expect_alike(what, shape, found, Answers(*plain.encoder, texts, pooling), 0, 0,
                     tolerances.sets);
    }
    const Built two(shape, contents, 0.0f, int8, set, 2);
    expect_alike(what + ", 2 threads,", shape, Answers(*two.encoder, texts, pooling), found, 0, 0,
                 tolerances.batches);
    for (int s = 0; s < texts.batch().sequences; ++s)
        expect_alike(what + ", alone,", shape, Answers(*one.encoder, texts.one(s), pooling), found,
                     texts.offsets[s], s, tolerances.batches);
}

void random_case(Random& random) {
    const ModelShape shape = any_shape(random);
    const Texts texts = any_texts(shape, random);
    const Pooling pooling =
        random.pick({Pooling::kCls, Pooling::kMean, Pooling::kMeanSqrtLength, Pooling::kMax});
    const std::vector<std::string> names = available_instruction_sets();
    const InstructionSet& set = select_instruction_set(names[random.word() % names.size()]);
    const bool int8 = random.chance(0.5), usual = random.chance(0.7);
    // int8 weights that are not finite are refused at load; large ones lead to values that are not
    // finite.
    const float odd = int8 ? 3e38f : random.pick({NAN, kInfinity, 3e38f});
    const Random contents(random.word());
    if (usual) return check_answers(shape, texts, pooling, int8, set, contents);
    const Built built(shape, contents, odd, int8, set, 1);
    const Answers whatever(*built.encoder, texts, pooling);
    check_refused(*built.encoder, texts, random);
}

// NaN must survive a head's tanh and a softmax, which could turn anything into finite numbers.
void check_not_finite_stays() {
    Random random(11);
    ModelShape shape = any_shape(random);
    shape.layers_attention.resize(1);
    shape.head = {HeadInput::kFirstToken, Activation::kTanh, false, shape.hidden_size, 3};
    shape.activation = Activation::kRelu;
    const Texts texts = any_texts(shape, random);
    for (const std::string& name : available_instruction_sets()) {
        Random contents(3);
        const InstructionSet& set = select_instruction_set(name);
        Weights weights(contents, 0.0f);
        Model model = float_model(shape, contents, weights, set.kernels->block_tokens);
        const Guarded<float> spoilt(round_up(shape.hidden_size, 16), NAN);
        model.embedding_norm.gamma = spoilt.data();
        const auto encoder = make_encoder(std::move(model), *set.kernels, 1);
        const Answers found(*encoder, texts, Pooling::kMean);
        for (const Guarded<float>* each : {&found.hidden, &found.pooled, &found.head})
            for (const float value : *each)
                if (std::isfinite(value)) fail(name, ": ", value, " computed from NaN");
    }
}

void examples() {
    check_not_finite_stays();
    for (uint64_t seed = 1; seed <= 150; ++seed) {
        Random random(seed);
        try {
            random_case(random);
        } catch (const Failure& failure) {
            fail("--case ", seed, " encoder: ", failure.what());
        }
    }
}

}  // namespace

const KernelTest kEncoderTest = {"encoder", examples, random_case};

}  // namespace sparsebert
