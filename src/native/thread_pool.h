// Threads that start once and synchronise often: a run hands the same function to every thread, and
// inside it `barrier` lines them up again within a microsecond.
#pragma once

#include <functional>
#include <memory>

namespace sparsebert {

class ThreadPool {
  public:
    // The caller of `run` is one of the threads, so threads - 1 are started. std::runtime_error if
    // the system does not give as many.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return threads_; }

    // Calls work(thread) on every thread, 0 being the caller's, and returns when all have. The work
    // must not throw. One run at a time: the caller holds its own lock. A forked process has
    // none of the threads, and must make a pool of its own (per_process.h).
    template <typename Work>
    void run(const Work& work) {
        run_on_all(std::cref(work));  // of a reference std::function allocates nothing
    }

    // Waits until every thread of the run has come here.
    void barrier();

  private:
    class Team;  // the threads and what they share

    void run_on_all(const std::function<void(int)>& work);

    int threads_;
    std::unique_ptr<Team> team_;
};

}  // namespace sparsebert
