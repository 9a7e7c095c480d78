// Threads that start once and synchronise often: a run calls the same function on every thread, and
// `barrier` inside it synchronises them within a microsecond.
#pragma once

#include <functional>
#include <memory>

namespace sparsebert {

class ThreadPool {
  public:
    // The caller of `run` is one of the threads, so threads - 1 are started. Throws
    // std::runtime_error if the system cannot start that many.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return threads_; }

    // Calls work(thread) on every thread (the caller is thread 0) and returns when all are done.
    // The work must not throw. One run at a time: callers need a lock of their own. A forked
    // process has none of the threads and must create its own pool (per_process.h).
    template <typename Work>
    void run(const Work& work) {
        run_on_all(std::cref(work));  // std::function of a reference does not allocate
    }

    // Waits until every thread of the run has reached the barrier.
    void barrier();

  private:
    class Team;  // the threads and what they share

    void run_on_all(const std::function<void(int)>& work);

    int threads_;
    std::unique_ptr<Team> team_;
};

}  // namespace sparsebert
