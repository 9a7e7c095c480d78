// The core that a thread runs on, and leaving it to a thread that shares it.
//
// A scheduler wakes a sleeper where it last ran or beside the one who wakes it, which may be the
// core of a thread that works with it, while another core idles: Linux does not look for one beyond
// the cores that share a last-level cache, which on many virtual machines is each alone. Two
// threads that take turns on a core are slower than one.
#pragma once

#include <atomic>

namespace sparsebert {

// The number of the core that this thread runs on; -1 where the system does not tell.
int current_core();

// Moves this thread to a core that it may use and that is none of the `count` ones of `taken`, if
// there is one; it may go on from there as before. Costs some 20 microseconds.
void leave_cores(const std::atomic<int>* taken, int count);

}  // namespace sparsebert
