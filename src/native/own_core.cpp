#include "own_core.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace sparsebert {

#ifdef __linux__
int current_core() { return sched_getcpu(); }

void leave_cores(const std::atomic<int>* taken, int count) {
    cpu_set_t allowed;  // asked each time: taskset and cgroups change it while we run
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;  // more cores than it holds
    cpu_set_t others = allowed;
    for (int i = 0; i < count; ++i) {
        const int core = taken[i];
        if (core >= 0 && core < CPU_SETSIZE) CPU_CLR(core, &others);
    }
    if (CPU_COUNT(&others) == 0) return;
    // The first call moves it. The second lets the scheduler move it again, which leaves it there
    // for now.
    if (sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
int current_core() { return -1; }

void leave_cores(const std::atomic<int>*, int) {}
#endif

}  // namespace sparsebert
