// State of which each process needs its own copy. A forked process has none of its parent's
// threads: a mutex that one of them held stays locked, and data that it was changing stays half
// changed.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

namespace sparsebert {

// The number of forks between the first process and this one.
unsigned count_forks();

// A T that is created again on first use in a forked process. The parent's copy is left alone: even
// destroying it would wait for threads that do not exist.
template <typename T>
class PerProcess {
  public:
    using Make = std::function<std::unique_ptr<T>()>;

    explicit PerProcess(Make make) : make_(std::move(make)), current_(made().release()) {}
    ~PerProcess() {
        const Made* last = current_.load();
        if (last->forks == count_forks()) delete last;
    }
    PerProcess(const PerProcess&) = delete;
    PerProcess& operator=(const PerProcess&) = delete;

    // May be called from several threads at once; throws whatever `make` throws.
    T& get() {
        Made* current = current_.load(std::memory_order_acquire);
        if (current->forks != count_forks()) {
            std::unique_ptr<Made> fresh = made();
            if (current_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel,
                                                 std::memory_order_acquire))
                current = fresh.release();  // else another thread was faster
        }
        return *current->value;
    }

  private:
    struct Made {
        unsigned forks;
        std::unique_ptr<T> value;
    };
    std::unique_ptr<Made> made() const {
        return std::make_unique<Made>(Made{count_forks(), make_()});
    }

    Make make_;
    std::atomic<Made*> current_;
};

}  // namespace sparsebert
