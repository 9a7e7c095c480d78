#include "weights.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "../half.h"

namespace sparsebert {

void refuse(const std::string& name, const std::string& why) {
    throw std::invalid_argument("weight '" + name + "' " + why + ".");
}

AnyArray as_array(const std::string& name, nb::handle value) {
    AnyArray array;
    if (!nb::try_cast(value, array, false)) refuse(name, "is not an array in memory");
    int64_t stride = 1;
    for (size_t axis = array.ndim(); axis-- > 0; stride *= static_cast<int64_t>(array.shape(axis)))
        if (array.shape(axis) > 1 && array.stride(axis) != stride)
            refuse(name, "is not contiguous");
    if (!is_aligned(array.data(), (array.dtype().bits + 7) / 8)) refuse(name, "is not aligned");
    return array;
}

Parts::Parts(const std::string& name, nb::handle value) : name_(name) {
    if (!nb::isinstance<nb::tuple>(value)) refuse(name, "is not a tuple of parts");
    parts_ = nb::borrow<nb::tuple>(value);
}

nb::handle Parts::operator[](size_t index) const {
    if (index >= parts_.size()) refuse(name_, "has too few parts");
    return parts_[index];
}

int Parts::integer(size_t index) const {
    int value;
    if (!nb::try_cast((*this)[index], value)) refuse(name_, "has a part that is not an integer");
    return value;
}

std::string Parts::text(size_t index) const {
    std::string value;
    if (!nb::try_cast((*this)[index], value)) refuse(name_, "has a part that is not a string");
    return value;
}

nb::object Weights::entry(const std::string& name) const {
    if (!has(name)) refuse(name, "is missing");
    return entries_[name.c_str()];
}

AnyArray Weights::array(const std::string& name) const {
    const nb::object value = entry(name);
    if (nb::isinstance<nb::tuple>(value))
        refuse(name, "is a tuple of parts, but must be one array");
    return as_array(name, value);
}

const float* Weights::vector(const std::string& name, int count) const {
    const AnyArray array = this->array(name);
    if (array.ndim() != 1 || array.shape(0) != static_cast<size_t>(count))
        refuse(name, "is not a vector of " + std::to_string(count) + " numbers");
    if (array.dtype() != nb::dtype<float>()) refuse(name, "is not float32");
    return static_cast<const float*>(array.data());
}

const float* Weights::float_matrix(const std::string& name, int rows, int columns) const {
    const AnyArray array = this->array(name);
    if (array.ndim() != 2) refuse(name, "is not a matrix");
    if (array.dtype() != nb::dtype<float>()) refuse(name, "is not float32");
    check_shape(name, static_cast<int>(array.shape(0)), static_cast<int>(array.shape(1)), rows,
                columns);
    return static_cast<const float*>(array.data());
}

std::vector<float> Weights::small_matrix(const std::string& name, int rows, int columns) const {
    const AnyArray array = this->array(name);
    const bool half = array.dtype() != nb::dtype<float>();
    if (array.ndim() != 2) refuse(name, "is not a matrix");
    if (half && (array.dtype().code != static_cast<uint8_t>(nb::dlpack::dtype_code::Float) ||
                 array.dtype().bits != 16))
        refuse(name, "is neither float32 nor float16");
    check_shape(name, static_cast<int>(array.shape(0)), static_cast<int>(array.shape(1)), rows,
                columns);
    std::vector<float> values(static_cast<size_t>(rows) * columns);
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = half ? half_to_float(static_cast<const uint16_t*>(array.data())[i])
                         : static_cast<const float*>(array.data())[i];
    return values;
}

void check_shape(const std::string& name, int rows, int columns, int wanted_rows,
                 int wanted_columns) {
    if (rows != wanted_rows || columns != wanted_columns)
        refuse(name, "is " + std::to_string(rows) + " x " + std::to_string(columns) + ", not " +
                         std::to_string(wanted_rows) + " x " + std::to_string(wanted_columns));
}

void check_bitmap(const std::string& name, const uint64_t* bits, int rows, int columns,
                  int panel_columns, int n, int m) {
    for (int panel = 0; panel * panel_columns < columns; ++panel) {
        const int left = columns - panel * panel_columns;
        const int count = left < panel_columns ? left : panel_columns;
        for (int row = 0; row < rows; ++row) {
            const uint64_t word = bits[static_cast<size_t>(panel) * rows + row];
            const bool beyond = count < 64 && word >> count;
            if (beyond || __builtin_popcountll(word) != count / m * n)
                refuse(name, "has bits that do not match its pattern");
        }
    }
}

void check_shared_bits(const std::string& name, const AnyArray& bits, int shared_rows, int rows,
                       int columns) {
    if (shared_rows < kTileRows || shared_rows % kTileRows)
        refuse(name, "has a pattern shared by " + std::to_string(shared_rows) +
                         " rows; their number must be a positive multiple of " +
                         std::to_string(kTileRows));
    const int blocks = (rows + shared_rows - 1) / shared_rows;
    if (bits.dtype() != nb::dtype<uint8_t>() || bits.ndim() != 2 ||
        bits.shape(0) != static_cast<size_t>(blocks) ||
        bits.shape(1) != static_cast<size_t>((columns + 15) / 16))
        refuse(name, "has bits of the wrong type or shape");
}

bool is_int8(const nb::dict& entries) {
    for (const auto& [name, value] : entries)
        if (nb::isinstance<nb::tuple>(value) &&
            Parts(nb::cast<std::string>(name), value).text(0) != "compressed")
            return true;
    return false;
}

namespace {

Activation read_activation(const std::string& name) {
    if (name == "gelu") return Activation::kGelu;
    if (name == "gelu_new") return Activation::kGeluTanh;
    if (name == "relu") return Activation::kRelu;
    if (name == "silu") return Activation::kSilu;
    if (name == "tanh") return Activation::kTanh;
    if (name == "none") return Activation::kNone;
    throw std::invalid_argument("unknown activation '" + name + "'.");
}

HeadInput read_input(const std::string& name) {
    if (name == "none") return HeadInput::kNone;
    if (name == "cls") return HeadInput::kFirstToken;
    if (name == "mean") return HeadInput::kMean;
    if (name == "tokens") return HeadInput::kEachToken;
    throw std::invalid_argument("unknown head input '" + name + "'.");
}

// `value` is (rows of embeddings, buckets, farthest, has pk, has pq, embeddings have a LayerNorm).
Disentangled read_disentangled(nb::handle value, const Weights& weights, const ModelShape& shape) {
    const Parts parts("disentangled", value);
    const int rows = parts.integer(0), hidden = shape.hidden_size;
    Disentangled found;
    found.span = rows / 2;
    found.buckets = parts.integer(1);
    found.farthest = parts.integer(2);
    found.keys = nb::cast<bool>(parts[3]);
    found.queries = nb::cast<bool>(parts[4]);
    found.terms = 1 + found.keys + found.queries;
    const bool sensible = found.buckets == 0 || (found.buckets >= 2 && found.buckets <= rows &&
                                                 found.farthest > found.buckets / 2 + 1);
    if (rows < 2 || rows % 2 || !sensible)
        throw std::invalid_argument(
            "the rows, buckets or farthest distance of disentangled attention are invalid.");
    if (shape.fused_attention)
        throw std::invalid_argument("disentangled attention needs separate query and key layers.");
    const std::string name = "encoder.rel_embeddings";
    found.embeddings = weights.small_matrix(name + ".weight", rows, hidden);
    if (!nb::cast<bool>(parts[5])) return found;
    const float* gamma = weights.vector(name + ".LayerNorm.weight", hidden);
    const float* beta = weights.vector(name + ".LayerNorm.bias", hidden);
    for (int row = 0; row < rows; ++row) {
        float* x = found.embeddings.data() + static_cast<size_t>(row) * hidden;
        const double mean = std::accumulate(x, x + hidden, 0.0) / hidden;
        double squares = 0.0;
        for (int f = 0; f < hidden; ++f) squares += (x[f] - mean) * (x[f] - mean);
        const double deviation = std::sqrt(squares / hidden + shape.epsilon);
        for (int f = 0; f < hidden; ++f)
            x[f] = static_cast<float>((x[f] - mean) / deviation * gamma[f] + beta[f]);
    }
    return found;
}

}  // namespace

// No matrix may have more rows, so that sizes can be rounded up, and doubled, within an int.
constexpr int kMostRows = 1 << 28;

void read_shape(const nb::dict& config, const Weights& weights, ModelShape& shape) {
    const auto integer = [&](const char* name) {
        const int value = nb::cast<int>(config[name]);
        if (value < 0 || value > kMostRows)
            throw std::invalid_argument("'" + std::string(name) + "' must be from 0 to " +
                                        std::to_string(kMostRows) + ", not " +
                                        std::to_string(value) + ".");
        return value;
    };
    const auto flag = [&](const char* name) { return nb::cast<bool>(config[name]); };
    const auto text = [&](const char* name) { return nb::cast<std::string>(config[name]); };
    shape.hidden_size = integer("hidden_size");
    shape.embedding_size = integer("embedding_size");
    shape.intermediate_size = integer("intermediate_size");
    shape.heads = integer("num_attention_heads");
    shape.vocabulary = integer("vocab_size");
    shape.positions = integer("max_position_embeddings");
    shape.first_position = integer("first_position");
    shape.types = integer("type_vocab_size");
    shape.epsilon = nb::cast<float>(config["layer_norm_eps"]);
    shape.activation = read_activation(text("hidden_act"));
    shape.norm_first = flag("norm_first");
    shape.fused_attention = flag("fused_attention");
    shape.gated = flag("gated");
    shape.fused_gate = flag("fused_gate");
    if (shape.fused_attention && flag("query_key_norm"))
        throw std::invalid_argument(
            "LayerNorms of queries and keys need separate query and key layers.");
    if (shape.norm_first && flag("residual_norm"))
        throw std::invalid_argument("residual_norm cannot be combined with norm_first.");
    if (shape.hidden_size < 1 || shape.intermediate_size < 1 || shape.embedding_size < 1 ||
        shape.heads < 1 || shape.hidden_size % shape.heads)
        throw std::invalid_argument(
            "sizes must be positive, and the attention heads must divide the hidden size.");
    if (shape.first_position < 0 || shape.longest() < 1)
        throw std::invalid_argument("max_position_embeddings leaves no positions for tokens.");
    for (const auto& layer : nb::cast<nb::list>(config["attention"])) {
        const Parts parts("attention", layer);
        LayerAttention attention;
        if (!parts[0].is_none()) attention.window = std::min(nb::cast<int>(parts[0]), kEverything);
        if (!parts[1].is_none())
            attention.rotary = {nb::cast<float>(parts[1]), nb::cast<float>(parts[2])};
        const auto [theta, factor] = attention.rotary;
        if (attention.window < 0 || !(theta >= 0 && factor > 0) ||
            (theta > 0 && (shape.hidden_size / shape.heads % 2 || shape.first_position > 0)))
            throw std::invalid_argument(
                "a layer's attention window or rotary embedding is invalid.");
        shape.layers_attention.push_back(attention);
    }
    if (const int buckets = integer("relative_buckets")) {
        if (buckets < 4 || buckets >= 4 * kFarthestBucket)
            throw std::invalid_argument("relative_buckets must be from 4 to " +
                                        std::to_string(4 * kFarthestBucket - 1) + ", not " +
                                        std::to_string(buckets) + ".");
        const std::string name = "encoder.relative_attention_bias.weight";
        shape.relative_bias = weights.small_matrix(name, buckets, shape.heads);
    }
    shape.slopes = nb::cast<std::vector<float>>(config["slopes"]);
    if (!shape.slopes.empty() && static_cast<int>(shape.slopes.size()) != shape.heads)
        throw std::invalid_argument("there must be one slope for each attention head.");
    if (const nb::object found = config["disentangled"]; !found.is_none())
        shape.disentangled = read_disentangled(found, weights, shape);
    const bool windowed =
        std::any_of(shape.layers_attention.begin(), shape.layers_attention.end(),
                    [](const LayerAttention& attention) { return attention.window < kEverything; });
    if (windowed && (!shape.relative_bias.empty() || !shape.slopes.empty() ||
                     shape.disentangled.span))  // the bias would replace a window's
        throw std::invalid_argument(
            "attention windows cannot be combined with scores that depend on distance.");
    HeadShape& head = shape.head;
    head.input = read_input(text("head_input"));
    if (head.input == HeadInput::kNone) return;
    head.activation = read_activation(text("head_activation"));
    head.decoder = flag("head_decoder");
    if (head.decoder && head.per_sequence())
        throw std::invalid_argument("a decoder scores each token, not a sequence.");
    if (head.decoder && text("head_dense").empty())
        throw std::invalid_argument("a decoder needs a dense layer before it.");
    head.width = head.decoder ? shape.embedding_size : shape.hidden_size;
    head.outputs = head.decoder ? shape.vocabulary : integer("head_outputs");
    if (head.outputs < 1) throw std::invalid_argument("the head has no outputs.");
}

}  // namespace sparsebert
