// AMX has eight tile registers of up to 16 rows by 64 bytes. In int8, a tile of sums has a row for
// each token, a tile of inputs 64 inputs of each token, and each row of a tile of weights has four
// inputs of 16 outputs, exactly as int8 weights lie in memory.
#pragma once

struct alignas(64) TileConfiguration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// While an object of this class lives, this thread may use its tiles. Tiles left configured would
// have to be saved at each context switch, and keep the core from deeper sleep states.
class TilesInUse {
  public:
    // `tokens`, at most 16, are the rows of tiles of sums and of inputs. `inputs` is the depth of
    // tiles 4 and 6, at most 64 and a multiple of four; tiles 5 and 7 have 64.
    explicit TilesInUse(int tokens, int inputs = 64) {
        TileConfiguration configuration;
        for (int tile = 0; tile < 8; ++tile) {
            configuration.row_bytes[tile] = 64;
            configuration.rows[tile] = static_cast<uint8_t>(tile < kFirstOfWeights ? tokens : 16);
        }
        configuration.row_bytes[4] = static_cast<uint16_t>(inputs);
        configuration.rows[6] = static_cast<uint8_t>(inputs / 4);
        asm volatile("ldtilecfg %0" ::"m"(configuration));
    }
    ~TilesInUse() { asm volatile("tilerelease"); }
    TilesInUse(const TilesInUse&) = delete;
    TilesInUse& operator=(const TilesInUse&) = delete;

    static constexpr int kFirstOfWeights = 6;
};

// In assembly, because GCC's intrinsics neither take the tile's number from a template nor tell the
// compiler that they read memory.
template <int Number>
struct Tile {
    static void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(Number)); }
    static void load(const void* rows, size_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(Number)
                     : "memory");
    }
    static void store(void* rows, size_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(stride), "i"(Number)
                     : "memory");
    }
};

// Adds inputs (unsigned) x weights (signed).
template <int Sums, int Inputs, int Weights>
inline void multiply(Tile<Sums>, Tile<Inputs>, Tile<Weights>) {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(Inputs), "i"(Weights));
}

// Adds weights (rows of 32 bf16 words) x inputs ([16][16][2 words]), sums in fp32.
template <int Sums, int Weights, int Inputs>
inline void multiply_bf16(Tile<Sums>, Tile<Weights>, Tile<Inputs>) {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(Weights), "i"(Inputs));
}
