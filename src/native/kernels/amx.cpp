#include "amx.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#define SPARSEBERT_ASKS_FOR_AMX
#endif

namespace sparsebert {

AmxProducts amx_products(const AmxReport& report, bool (*request)()) {
    constexpr uint64_t kTileStates = 3u << 17;  // configuration and data
    const bool usable = report.tiles && (report.int8 || report.bf16) &&
                        (report.saved_states & kTileStates) == kTileStates && request();
    return {usable && report.int8, usable && report.bf16};
}

#ifdef SPARSEBERT_ASKS_FOR_AMX
namespace {

AmxReport report() {
    AmxReport found;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        found.bf16 = d >> 22 & 1;
        found.tiles = d >> 24 & 1;
        found.int8 = d >> 25 & 1;
    }
    constexpr unsigned kOsSavesStates = 1u << 27;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & kOsSavesStates)) {
        unsigned low = 0, high = 0;
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        found.saved_states = static_cast<uint64_t>(high) << 32 | low;
    }
    return found;
}

// Since Linux 5.16 a process may use tiles only after it has requested permission.
bool request_permission() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

AmxProducts amx_products() {
    static const AmxProducts products = amx_products(report(), request_permission);
    return products;
}
#else
AmxProducts amx_products() { return {}; }
#endif

}  // namespace sparsebert
