// Threads that start once and meet often: a run hands the same function to every thread, and
// inside it `barrier` lines them up again within a microsecond or two.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace sparsebert {

class ThreadPool {
  public:
    // The caller of `run` is one of the threads, so threads - 1 are started.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls work(thread) on every thread, 0 being the caller's, and returns when all have. The work
    // must not throw. One run at a time: the caller holds its own lock.
    void run(const std::function<void(int)>& work);

    // Waits until every thread of the run has come here.
    void barrier();

  private:
    void serve(int thread);

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    const std::function<void(int)>* work_ = nullptr;
    unsigned long generation_ = 0;  // guarded by mutex_
    bool stopping_ = false;         // guarded by mutex_
    std::atomic<int> waiting_{0};
    std::atomic<unsigned> phase_{0};
};

}  // namespace sparsebert
