// tile_amx.inl without AMX: the same tiles in plain memory and plain loops, for tests on any
// machine.
#pragma once

struct PlainTile {
    uint8_t bytes[16][64];
};

inline thread_local PlainTile plain_tiles[8];
inline thread_local int plain_tile_tokens = 0;   // 0 while no tiles are in use
inline thread_local int plain_tile_inputs = 64;  // of tiles 4 and 6

class TilesInUse {
  public:
    explicit TilesInUse(int tokens, int inputs = 64) {
        plain_tile_tokens = tokens;
        plain_tile_inputs = inputs;
    }
    ~TilesInUse() { plain_tile_tokens = 0; }
    TilesInUse(const TilesInUse&) = delete;
    TilesInUse& operator=(const TilesInUse&) = delete;

    static constexpr int kFirstOfWeights = 6;
};

template <int Number>
struct Tile {
    static PlainTile& tile() { return plain_tiles[Number]; }
    static int rows() {
        if (!plain_tile_tokens) std::abort();  // the CPU would fault, too
        if (Number < TilesInUse::kFirstOfWeights) return plain_tile_tokens;
        return Number == 6 ? plain_tile_inputs / 4 : 16;
    }
    static int row_bytes() { return Number == 4 ? plain_tile_inputs : 64; }

    static void zero() {
        for (int row = rows() - 1; row >= 0; --row) std::memset(tile().bytes[row], 0, row_bytes());
    }
    static void load(const void* from, size_t stride) {
        for (int row = 0; row < rows(); ++row)
            std::memcpy(tile().bytes[row], static_cast<const uint8_t*>(from) + row * stride,
                        row_bytes());
    }
    static void store(void* to, size_t stride) {
        for (int row = 0; row < rows(); ++row)
            std::memcpy(static_cast<uint8_t*>(to) + row * stride, tile().bytes[row], row_bytes());
    }
};

template <int Sums, int Inputs, int Weights>
inline void multiply(Tile<Sums> sums, Tile<Inputs> inputs, Tile<Weights> weights) {
    if (inputs.row_bytes() != 4 * weights.rows()) std::abort();  // the CPU would fault, too
    for (int token = 0; token < sums.rows(); ++token) {
        int32_t row[16];
        std::memcpy(row, sums.tile().bytes[token], sizeof row);
        for (int i = 0; i < inputs.row_bytes(); ++i)
            for (int output = 0; output < 16; ++output)
                row[output] += inputs.tile().bytes[token][i] *
                               static_cast<int8_t>(weights.tile().bytes[i / 4][4 * output + i % 4]);
        std::memcpy(sums.tile().bytes[token], row, sizeof row);
    }
}

template <int Sums, int Weights, int Inputs>
inline void multiply_bf16(Tile<Sums> sums, Tile<Weights> weights, Tile<Inputs> inputs) {
    const auto word = [](const PlainTile& tile, int row, int index) {
        uint16_t half;
        std::memcpy(&half, tile.bytes[row] + 2 * index, sizeof half);
        return from_bf16(half);
    };
    for (int output = 0; output < sums.rows(); ++output) {
        float row[16];
        std::memcpy(row, sums.tile().bytes[output], sizeof row);
        for (int i = 0; i < 32; ++i)
            for (int token = 0; token < 16; ++token)
                row[token] +=
                    word(weights.tile(), output, i) * word(inputs.tile(), i / 2, 2 * token + i % 2);
        std::memcpy(sums.tile().bytes[output], row, sizeof row);
    }
}
