#include "run/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "cpu/flush_denormals.h"
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace alstm {

namespace {

constexpr int kMostHelpers = 255;

class ThreadPool {
 public:
  // False, with nothing done, if the threads help another caller.
  bool run(int helpers, const Work& work) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    start(helpers);
    work_ = &work;
    error_ = nullptr;
    seats_.store(uint32_t(std::min(helpers, started_)) * kSeat, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst)) {
      { const std::lock_guard<std::mutex> lock(mutex_); }  // whoever is about to sleep does, and is woken
      wake_.notify_all();
    }
    try {
      work(0);
    } catch (...) {
      keep(std::current_exception());
    }
    seats_.fetch_and(kSeat - 1, std::memory_order_acq_rel);  // nobody comes any more
    while (!spin([&] { return !seats_.load(std::memory_order_acquire); })) std::this_thread::yield();
    const std::exception_ptr error = error_;
    error_ = nullptr;
    busy_.store(false, std::memory_order_release);
    if (error) std::rethrow_exception(error);
    return true;
  }

 private:
  void start(int helpers) {
    try {
      for (; started_ < std::min(helpers, kMostHelpers); started_++) std::thread([this] { help(); }).detach();
    } catch (const std::system_error&) {  // no more threads are to be had: those who are there will do
    }
  }

  [[noreturn]] void help() {
    const FlushDenormals flushed;
    for (;;) {
      if (!spin([this] { return wanted(); })) {
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [this] { return wanted(); });
        asleep_.fetch_sub(1, std::memory_order_relaxed);
      }
      if (const int who = come()) {
        try {
          (*work_)(who);
        } catch (...) {
          keep(std::current_exception());
        }
        seats_.fetch_sub(1, std::memory_order_acq_rel);
      }
    }
  }

  bool wanted() const { return seats_.load(std::memory_order_seq_cst) >= kSeat; }

  // This thread's number in the work, or 0 if there is no seat left.
  int come() {
    uint32_t seats = seats_.load(std::memory_order_acquire);
    while (seats >= kSeat)
      if (seats_.compare_exchange_weak(seats, seats - kSeat + 1, std::memory_order_acq_rel)) return int(seats / kSeat);
    return 0;
  }

  void keep(std::exception_ptr error) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = error;
  }

  // Seats that are left, times kSeat, and how many helpers have come and not yet returned. What else the work needs is
  // set before there are seats, and stays until the last has returned.
  static constexpr uint32_t kSeat = 1 << 16;
  std::atomic<uint32_t> seats_{0};
  std::atomic<bool> busy_{false};
  std::atomic<int> asleep_{0};
  const Work* work_ = nullptr;
  std::exception_ptr error_;
  int started_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
};

// Never freed: threads that sleep in it end with the process.
std::atomic<ThreadPool*> the_pool{nullptr};

ThreadPool& pool() {
#if !defined(_WIN32)
  // The threads stay behind in the parent, and whatever they had locked stays locked.
  static const int registered = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });
  (void)registered;
#endif
  ThreadPool* found = the_pool.load(std::memory_order_acquire);
  if (found) return *found;
  auto* made = new ThreadPool;
  if (the_pool.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return *made;
  delete made;
  return *found;
}

}  // namespace

void run_together(int threads, const Work& work) {
  if (threads < 2 || !pool().run(threads - 1, work)) work(0);
}

}  // namespace alstm
