#include "thread_pool.h"

namespace sparsebert {
namespace {

// Spins before a waiting thread offers its core to others; about 20 microseconds.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
    for (int thread = 1; thread < threads; ++thread)
        workers_.emplace_back([this, thread] { serve(thread); });
}

ThreadPool::~ThreadPool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(int)>& work) {
    if (!workers_.empty()) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            work_ = &work;
            ++generation_;
        }
        wake_.notify_all();
    }
    work(0);
    barrier();  // nobody returns while `work` is still in use
}

void ThreadPool::barrier() {
    if (workers_.empty()) return;
    const unsigned phase = phase_.load(std::memory_order_relaxed);
    if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads()) {
        waiting_.store(0, std::memory_order_relaxed);
        phase_.store(phase + 1, std::memory_order_release);
        return;
    }
    for (int spin = 0; phase_.load(std::memory_order_acquire) == phase; ++spin) {
        if (spin < kSpins)
            pause();
        else
            std::this_thread::yield();
    }
}

void ThreadPool::serve(int thread) {
    unsigned long seen = 0;
    for (;;) {
        const std::function<void(int)>* work;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
            if (stopping_) return;
            seen = generation_;
            work = work_;
        }
        (*work)(thread);
        barrier();
    }
}

}  // namespace sparsebert
