#include <nanobind/stl/string.h>

#include "weights.h"

namespace sparsebert {
namespace {

bool is_half(const std::string& name, const AnyArray& array) {
    if (array.dtype() == nb::dtype<float>()) return false;
    const auto type = array.dtype();
    if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 16)
        return true;
    refuse(name, "is neither float32 nor float16");
}

Matrix dense(const std::string& name, const AnyArray& array) {
    if (array.ndim() != 2) refuse(name, "is not a matrix");
    Matrix matrix;
    matrix.half = is_half(name, array);
    matrix.rows = static_cast<int>(array.shape(0));
    matrix.columns = static_cast<int>(array.shape(1));
    matrix.values = array.data();
    return matrix;
}

Matrix compressed(const std::string& name, const nb::tuple& parts) {
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
    if (!pairs)
        check_bitmap(name, static_cast<const uint64_t*>(matrix.bits), matrix.rows, columns,
                     matrix.panel_columns, n, m);
    return matrix;
}

// An entry is an array, or (n, m, columns, values, bits) for a compressed matrix.
Matrix read_matrix(const Weights& weights, const std::string& name, int rows, int columns) {
    const nb::object value = weights.entry(name);
    const Matrix matrix = nb::isinstance<nb::tuple>(value)
                              ? compressed(name, nb::cast<nb::tuple>(value))
                              : dense(name, nb::cast<AnyArray>(value));
    check_shape(name, matrix.rows, matrix.columns, rows, columns);
    return matrix;
}

Dense read_layer(const Weights& weights, const std::string& name, int rows, int columns) {
    return {read_matrix(weights, name + ".weight", rows, columns),
            weights.vector(name + ".bias", rows)};
}

Norm read_norm(const Weights& weights, const std::string& name, int features) {
    return {weights.vector(name + ".weight", features), weights.vector(name + ".bias", features)};
}

void read_head(const Weights& weights, Model& model) {
    const int hidden = model.hidden_size;
    switch (model.head) {
        case Head::kEncoder:
            break;
        case Head::kSequence:
            model.pooler = read_layer(weights, "pooler.dense", hidden, hidden);
            model.classifier = read_layer(weights, "classifier", model.outputs, hidden);
            break;
        case Head::kQuestion:
            model.classifier = read_layer(weights, "qa_outputs", model.outputs, hidden);
            break;
        case Head::kToken:
            model.classifier = read_layer(weights, "classifier", model.outputs, hidden);
            break;
        case Head::kMaskedLm: {
            model.transform =
                read_layer(weights, "cls.predictions.transform.dense", hidden, hidden);
            model.transform_norm =
                read_norm(weights, "cls.predictions.transform.LayerNorm", hidden);
            const char* decoder = "cls.predictions.decoder.weight";
            model.classifier.weight = weights.has(decoder)
                                          ? read_matrix(weights, decoder, model.vocabulary, hidden)
                                          : model.words;  // tied
            model.classifier.bias = weights.vector("cls.predictions.bias", model.vocabulary);
        }
    }
}

}  // namespace

Model read_float_model(const nb::dict& config, const nb::dict& entries) {
    const Weights weights(entries);
    Model model;
    read_shape(config, model);
    const int hidden = model.hidden_size, wide = model.intermediate_size;
    const auto table = [&](const char* name, int rows) {
        const Matrix matrix = read_matrix(weights, name, rows, hidden);
        if (matrix.layout != Layout::kDense) refuse(name, "is a table, which must be dense");
        return matrix;
    };
    model.words = table("embeddings.word_embeddings.weight", model.vocabulary);
    model.position_table = table("embeddings.position_embeddings.weight", model.positions);
    model.type_table = table("embeddings.token_type_embeddings.weight", model.types);
    model.embedding_norm = read_norm(weights, "embeddings.LayerNorm", hidden);
    const int layers = nb::cast<int>(config["num_hidden_layers"]);
    for (int l = 0; l < layers; ++l) {
        const std::string prefix = "encoder.layer." + std::to_string(l) + ".";
        const auto layer = [&](const char* name, int rows, int columns) {
            return read_layer(weights, prefix + name, rows, columns);
        };
        model.layers.push_back({layer("attention.self.query", hidden, hidden),
                                layer("attention.self.key", hidden, hidden),
                                layer("attention.self.value", hidden, hidden),
                                layer("attention.output.dense", hidden, hidden),
                                read_norm(weights, prefix + "attention.output.LayerNorm", hidden),
                                layer("intermediate.dense", wide, hidden),
                                layer("output.dense", hidden, wide),
                                read_norm(weights, prefix + "output.LayerNorm", hidden)});
    }
    read_head(weights, model);
    return model;
}

}  // namespace sparsebert
