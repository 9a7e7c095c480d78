// Inputs where products take signed bytes only: flipping the highest bit subtracts 128 from each,
// and the sums start with what they would lack.
#pragma once

constexpr int kInputOffset = 128;

using Inputs = int8x16_t;

inline Inputs as_inputs(uint8x16_t x) {
    return vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(kInputOffset)));
}
inline Inputs selected(Inputs x, uint8x16_t indices) { return vqtbl1q_s8(x, indices); }
