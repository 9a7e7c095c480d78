#include "per_process.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace sparsebert {
namespace {

std::atomic<unsigned> forks{0};

}  // namespace

unsigned count_forks() {
#if defined(__unix__) || defined(__APPLE__)
    static const int registered = pthread_atfork(nullptr, nullptr, [] { ++forks; });
    static_cast<void>(registered);
#endif
    return forks.load(std::memory_order_relaxed);
}

}  // namespace sparsebert
