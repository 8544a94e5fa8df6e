// Whose turn it is with a state: one thread at a time advances, sets or reads it.
#pragma once

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

namespace alstm {

// Another thread is advancing or setting the state.
struct Busy : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Turn {
 public:
  // To advance or set the state: false while another thread does. Waits for one that reads it, which is brief.
  bool take() {
    for (;;) {
      Use use = Use::none;
      if (use_.compare_exchange_weak(use, Use::change, std::memory_order_acquire)) return true;
      if (use == Use::change) return false;
      if (use == Use::read) std::this_thread::yield();
    }
  }
  bool take_to_read() {  // false while another thread uses the state in any way
    Use use = Use::none;
    return use_.compare_exchange_strong(use, Use::read, std::memory_order_acquire);
  }
  void give_back() { use_.store(Use::none, std::memory_order_release); }
  void wait() const {  // until nobody used the state for a moment
    for (int i = 0; use_.load(std::memory_order_relaxed) != Use::none; i++) {
      if (i < 100)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

 private:
  enum class Use : int { none, change, read };
  std::atomic<Use> use_{Use::none};
};

}  // namespace alstm
