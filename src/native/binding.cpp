// sparsebert._engine: numpy arrays in and out, nothing copied, the GIL released while it runs.
// The Python package sparsebert.engine is the face of this module and gives its contracts.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#include "encoder.h"
#include "kernels/dispatch.h"

namespace nb = nanobind;

namespace sparsebert {
namespace {

using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
    throw std::invalid_argument("weight '" + name + "' " + why + ".");
}

// Reads the weights of a model out of a dict of arrays, checking each against the shape that the
// configuration gives it. An entry is an array, or (n, m, columns, values, bits) for a compressed
// matrix.
class WeightReader {
  public:
    explicit WeightReader(const nb::dict& weights) : weights_(weights) {}

    bool has(const std::string& name) const { return weights_.contains(name.c_str()); }

    const float* vector(const std::string& name, int count) const {
        const AnyArray array = nb::cast<AnyArray>(entry(name));
        if (array.ndim() != 1 || array.shape(0) != static_cast<size_t>(count))
            refuse(name, "does not hold " + std::to_string(count) + " numbers");
        if (array.dtype() != nb::dtype<float>()) refuse(name, "is not float32");
        return static_cast<const float*>(array.data());
    }

    Matrix matrix(const std::string& name, int rows, int columns) const {
        const nb::object value = entry(name);
        Matrix matrix = nb::isinstance<nb::tuple>(value)
                            ? compressed(name, nb::cast<nb::tuple>(value))
                            : dense(name, nb::cast<AnyArray>(value));
        if (matrix.rows != rows || matrix.columns != columns)
            refuse(name, "is " + std::to_string(matrix.rows) + " x " +
                             std::to_string(matrix.columns) + ", not " + std::to_string(rows) +
                             " x " + std::to_string(columns));
        return matrix;
    }

    Dense layer(const std::string& name, int rows, int columns) const {
        return {matrix(name + ".weight", rows, columns), vector(name + ".bias", rows)};
    }

    Norm norm(const std::string& name, int features) const {
        return {vector(name + ".weight", features), vector(name + ".bias", features)};
    }

  private:
    nb::object entry(const std::string& name) const {
        if (!has(name)) refuse(name, "is missing");
        return weights_[name.c_str()];
    }

    static bool is_half(const std::string& name, const AnyArray& array) {
        if (array.dtype() == nb::dtype<float>()) return false;
        const auto type = array.dtype();
        if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 16)
            return true;
        refuse(name, "is neither float32 nor float16");
    }

    static Matrix dense(const std::string& name, const AnyArray& array) {
        if (array.ndim() != 2) refuse(name, "is not a matrix");
        Matrix matrix;
        matrix.half = is_half(name, array);
        matrix.rows = static_cast<int>(array.shape(0));
        matrix.columns = static_cast<int>(array.shape(1));
        matrix.values = array.data();
        return matrix;
    }

    static Matrix compressed(const std::string& name, const nb::tuple& parts) {
        const int n = nb::cast<int>(parts[0]), m = nb::cast<int>(parts[1]);
        const int columns = nb::cast<int>(parts[2]);
        const AnyArray values = nb::cast<AnyArray>(parts[3]), bits = nb::cast<AnyArray>(parts[4]);
        if (n < 1 || m <= n || m > kPanelColumns || columns < m || columns % m)
            refuse(name, "has an impossible pattern");
        const bool pairs = n == 1 && m == 2;
        Matrix matrix;
        matrix.layout = pairs ? Layout::kPairs : Layout::kBitmap;
        matrix.half = is_half(name, values);
        matrix.panel_columns = kPanelColumns / m * m;
        matrix.kept = matrix.panel_columns / m * n;
        matrix.columns = columns;
        const size_t panels = (columns + matrix.panel_columns - 1) / matrix.panel_columns;
        if (values.ndim() != 3 || bits.ndim() != 2 || values.shape(0) != panels ||
            bits.shape(0) != panels || values.shape(1) != bits.shape(1) ||
            values.shape(2) != static_cast<size_t>(matrix.kept))
            refuse(name, "has values and bits of the wrong shape");
        if (bits.dtype() != (pairs ? nb::dtype<uint32_t>() : nb::dtype<uint64_t>()))
            refuse(name, "has bits of the wrong type");
        matrix.rows = static_cast<int>(values.shape(1));
        matrix.values = values.data();
        matrix.bits = bits.data();
        if (!pairs) check_bitmap(name, matrix, static_cast<int>(panels), n, m);
        return matrix;
    }

    // A stray bit would read beyond the activations or the values.
    static void check_bitmap(const std::string& name, const Matrix& matrix, int panels, int n,
                             int m) {
        const uint64_t* bits = static_cast<const uint64_t*>(matrix.bits);
        for (int panel = 0; panel < panels; ++panel) {
            const int left = matrix.columns - panel * matrix.panel_columns;
            const int columns = left < matrix.panel_columns ? left : matrix.panel_columns;
            for (int row = 0; row < matrix.rows; ++row) {
                const uint64_t word = bits[static_cast<size_t>(panel) * matrix.rows + row];
                const bool beyond = columns < 64 && word >> columns;
                if (beyond || __builtin_popcountll(word) != columns / m * n)
                    refuse(name, "has bits that are not those of its pattern");
            }
        }
    }

    const nb::dict& weights_;
};

Activation read_activation(const std::string& name) {
    if (name == "gelu") return Activation::kGelu;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
    if (name == "relu") return Activation::kRelu;
    throw std::invalid_argument("unknown activation '" + name + "'.");
}

void read_head(const WeightReader& weights, const std::string& head, int labels, Model& model) {
    const int hidden = model.hidden_size;
    if (head == "encoder") {
        model.head = Head::kEncoder;
    } else if (head == "sequence-classification") {
        model.head = Head::kSequence;
        model.pooler = weights.layer("pooler.dense", hidden, hidden);
        model.classifier = weights.layer("classifier", labels, hidden);
    } else if (head == "question-answering") {
        model.head = Head::kQuestion;
        model.classifier = weights.layer("qa_outputs", 2, hidden);
    } else if (head == "token-classification") {
        model.head = Head::kToken;
        model.classifier = weights.layer("classifier", labels, hidden);
    } else if (head == "masked-lm") {
        model.head = Head::kMaskedLm;
        model.transform = weights.layer("cls.predictions.transform.dense", hidden, hidden);
        model.transform_norm = weights.norm("cls.predictions.transform.LayerNorm", hidden);
        const char* decoder = "cls.predictions.decoder.weight";
        model.classifier.weight = weights.has(decoder)
                                      ? weights.matrix(decoder, model.vocabulary, hidden)
                                      : model.words;  // tied
        model.classifier.bias = weights.vector("cls.predictions.bias", model.vocabulary);
    } else {
        throw std::invalid_argument("unknown head '" + head + "'.");
    }
}

Model read_model(const nb::dict& config, const nb::dict& arrays) {
    const auto integer = [&](const char* name) { return nb::cast<int>(config[name]); };
    const WeightReader weights(arrays);
    Model model;
    model.hidden_size = integer("hidden_size");
    model.intermediate_size = integer("intermediate_size");
    model.heads = integer("num_attention_heads");
    model.vocabulary = integer("vocab_size");
    model.positions = integer("max_position_embeddings");
    model.types = integer("type_vocab_size");
    model.epsilon = nb::cast<float>(config["layer_norm_eps"]);
    model.activation = read_activation(nb::cast<std::string>(config["hidden_act"]));
    const int hidden = model.hidden_size, wide = model.intermediate_size;
    if (hidden < 1 || wide < 1 || model.heads < 1 || hidden % model.heads)
        throw std::invalid_argument("the attention heads do not divide the hidden size.");
    model.words = weights.matrix("embeddings.word_embeddings.weight", model.vocabulary, hidden);
    model.position_table =
        weights.matrix("embeddings.position_embeddings.weight", model.positions, hidden);
    model.type_table =
        weights.matrix("embeddings.token_type_embeddings.weight", model.types, hidden);
    for (const Matrix* table : {&model.words, &model.position_table, &model.type_table})
        if (table->layout != Layout::kDense)
            throw std::invalid_argument("embedding tables are dense.");
    model.embedding_norm = weights.norm("embeddings.LayerNorm", hidden);
    for (int l = 0; l < integer("num_hidden_layers"); ++l) {
        const std::string prefix = "encoder.layer." + std::to_string(l) + ".";
        model.layers.push_back({weights.layer(prefix + "attention.self.query", hidden, hidden),
                                weights.layer(prefix + "attention.self.key", hidden, hidden),
                                weights.layer(prefix + "attention.self.value", hidden, hidden),
                                weights.layer(prefix + "attention.output.dense", hidden, hidden),
                                weights.norm(prefix + "attention.output.LayerNorm", hidden),
                                weights.layer(prefix + "intermediate.dense", wide, hidden),
                                weights.layer(prefix + "output.dense", hidden, wide),
                                weights.norm(prefix + "output.LayerNorm", hidden)});
    }
    read_head(weights, nb::cast<std::string>(config["head"]), integer("num_labels"), model);
    return model;
}

// The encoder together with the arrays that its weights point into.
struct BoundEncoder {
    BoundEncoder(const nb::dict& config, nb::dict arrays, int threads, const std::string& isa)
        : weights(std::move(arrays)),
          encoder(read_model(config, weights), select_kernels(isa), threads) {}

    static Batch batch(const Integers& ids, const Integers& types, const Integers& offsets) {
        const size_t sequences = offsets.shape(0) - 1;
        if (offsets.shape(0) < 1 || ids.shape(0) != types.shape(0) ||
            static_cast<size_t>(offsets.data()[sequences]) != ids.shape(0))
            throw std::invalid_argument("ids, types and offsets do not describe the same tokens.");
        return {ids.data(), types.data(), offsets.data(), static_cast<int>(sequences)};
    }

    static void expect(const Output& out, size_t rows, size_t columns) {
        if (out.shape(0) != rows || out.shape(1) != columns)
            throw std::invalid_argument("the output array has the wrong shape.");
    }

    nb::dict weights;
    Encoder encoder;
};

Pooling read_pooling(const std::string& mode) {
    if (mode == "cls") return Pooling::kCls;
    if (mode == "mean") return Pooling::kMean;
    if (mode == "mean_sqrt_len") return Pooling::kMeanSqrtLength;
    if (mode == "max") return Pooling::kMax;
    throw std::invalid_argument("unknown pooling '" + mode + "'.");
}

}  // namespace
}  // namespace sparsebert

NB_MODULE(_engine, m) {
    using namespace sparsebert;
    m.def("available_instruction_sets", &available_instruction_sets);
    m.def("select_instruction_set",
          [](const std::string& name) { return std::string(select_kernels(name).name); });
    nb::class_<BoundEncoder>(m, "Encoder")
        .def(nb::init<const nb::dict&, nb::dict, int, const std::string&>())
        .def_prop_ro("threads", [](const BoundEncoder& self) { return self.encoder.threads(); })
        .def_prop_ro(
            "instruction_set",
            [](const BoundEncoder& self) { return std::string(self.encoder.kernels().name); })
        .def("hidden",
             [](BoundEncoder& self, const Integers& ids, const Integers& types,
                const Integers& offsets, const Output& out) {
                 const Batch batch = BoundEncoder::batch(ids, types, offsets);
                 BoundEncoder::expect(out, ids.shape(0), self.encoder.model().hidden_size);
                 nb::gil_scoped_release release;
                 self.encoder.hidden(batch, out.data());
             })
        .def("pooled",
             [](BoundEncoder& self, const Integers& ids, const Integers& types,
                const Integers& offsets, const std::string& mode, bool normalize,
                const Output& out) {
                 const Batch batch = BoundEncoder::batch(ids, types, offsets);
                 const Pooling pooling = read_pooling(mode);
                 BoundEncoder::expect(out, batch.sequences, self.encoder.model().hidden_size);
                 nb::gil_scoped_release release;
                 self.encoder.pooled(batch, pooling, normalize, out.data());
             })
        .def("head", [](BoundEncoder& self, const Integers& ids, const Integers& types,
                        const Integers& offsets, const Output& out) {
            const Batch batch = BoundEncoder::batch(ids, types, offsets);
            const Model& model = self.encoder.model();
            if (model.head == Head::kEncoder)
                throw std::invalid_argument("this model has no head.");
            BoundEncoder::expect(
                out, model.head == Head::kSequence ? offsets.shape(0) - 1 : ids.shape(0),
                model.classifier.weight.rows);
            nb::gil_scoped_release release;
            self.encoder.head(batch, out.data());
        });
}
