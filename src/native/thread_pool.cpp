#include "thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace sparsebert {
namespace {

// How long an idle thread spins before it sleeps. Waking a sleeping thread takes some 50
// microseconds, which back-to-back calls, as of a small model, avoid this way; an idle process
// wastes no more than this.
constexpr std::chrono::microseconds kPatience{100};

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// One step of spinning. From time to time it yields the core: with more threads than cores, the
// thread waited for may need it.
constexpr int kPauses = 128;  // a few microseconds

inline void linger(int step) {
    if (step % kPauses == kPauses - 1)
        std::this_thread::yield();
    else
        pause();
}

}  // namespace

class ThreadPool::Team {
  public:
    explicit Team(int threads) : size_(threads) {
        workers_.reserve(threads - 1);
        try {
            for (int thread = 1; thread < threads; ++thread)
                workers_.emplace_back([this, thread] { serve(thread); });
        } catch (const std::exception&) {  // no destructor will run; the workers wait
            const std::string started = std::to_string(workers_.size() + 1);
            finish();
            throw std::runtime_error("only " + started + " of " + std::to_string(threads) +
                                     " threads could be started");
        }
    }
    ~Team() { finish(); }

    // Hands `work` to the workers; null makes them return.
    void start(const std::function<void(int)>* work) {
        if (workers_.empty()) return;
        work_ = work;
        ++runs_;  // sequentially consistent, as is ++sleepers_: at least one sees the other
        if (sleepers_ > 0) {
            {
                std::lock_guard<std::mutex> lock(mutex_);
            }
            wake_.notify_all();
        }
    }

    void barrier() {
        if (workers_.empty()) return;
        const unsigned phase = phase_.load(std::memory_order_relaxed);
        if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            waiting_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int step = 0; phase_.load(std::memory_order_acquire) == phase; ++step) linger(step);
    }

  private:
    void finish() {
        start(nullptr);
        for (std::thread& worker : workers_) worker.join();
    }

    void serve(int thread) {
        for (unsigned run = 1;; ++run) {
            await(run);
            if (!work_) return;
            (*work_)(thread);
            barrier();
        }
    }

    // Returns once `run` has begun. No run can be missed: the next begins after this one's barrier.
    void await(unsigned run) {
        using Clock = std::chrono::steady_clock;
        const auto start = Clock::now();
        for (int step = 0; runs_ != run; ++step) {
            linger(step);
            if (step % kPauses || Clock::now() - start < kPatience) continue;
            std::unique_lock<std::mutex> lock(mutex_);
            ++sleepers_;
            wake_.wait(lock, [&] { return runs_ == run; });
            --sleepers_;
        }
    }

    const int size_;
    std::vector<std::thread> workers_;
    const std::function<void(int)>* work_ = nullptr;  // of the current run
    std::atomic<unsigned> runs_{0};
    std::atomic<int> sleepers_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    // On cache lines of their own, apart from what idle workers poll.
    alignas(64) std::atomic<int> waiting_{0};
    alignas(64) std::atomic<unsigned> phase_{0};
};

ThreadPool::ThreadPool(int threads) : threads_(threads), team_(std::make_unique<Team>(threads)) {}

ThreadPool::~ThreadPool() = default;

void ThreadPool::run_on_all(const std::function<void(int)>& work) {
    team_->start(&work);
    work(0);
    team_->barrier();  // nobody returns while `work` is still in use
}

void ThreadPool::barrier() { team_->barrier(); }

}  // namespace sparsebert
