// Whether tile registers may be used here.
#pragma once

#include <cstdint>

namespace sparsebert {

// What a CPU and its operating system say of AMX.
struct AmxReport {
    bool tiles = false, int8 = false;  // instructions that the CPU, or the hypervisor, shows
    uint64_t saved_states = 0;         // XCR0: what the system saves between threads
};

// Whether AMX may be used, given the report and `request`, which asks the system for permission.
// A virtual machine may show the instructions and neither save the tiles nor permit them.
bool amx_usable(const AmxReport& report, bool (*request)());

// The same for this machine. Asks once; the permission holds for all threads of the process and for
// those that it starts.
bool amx_usable();

}  // namespace sparsebert
