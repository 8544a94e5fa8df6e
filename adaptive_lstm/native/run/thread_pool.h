// The threads of the process that help the one that calls: started when they are first wanted, awake for a moment after
// their work, then asleep. A child of a fork starts its own.
#pragma once

#include <memory>
#include <type_traits>

namespace alstm {

// What several threads do together: called once in each, with its number. A reference to something callable.
class Work {
 public:
  template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, Work>>>
  Work(F&& f)
      : of_(std::addressof(f)),
        call_([](void* of, int who) { (*static_cast<std::remove_reference_t<F>*>(of))(who); }) {}
  void operator()(int who) const { call_(of_, who); }

 private:
  void* of_;
  void (*call_)(void*, int);
};

// work(0) in this thread, and work(1) to work(threads - 1) in others, as many of them as come in time: one that sleeps
// too long, helps another caller or cannot be started does not. So work is shared out as it is done, and whoever comes
// late finds nothing left. Returns when all who came have returned, and then throws what one of them has thrown.
void run_together(int threads, const Work& work);

// Waits for another thread's next move: `ready()` is asked for a moment without pause.
template <class Ready>
bool spin(Ready ready) {
  for (int i = 0; i < 2000; i++) {  // tens of microseconds
    if (ready()) return true;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }
  return false;
}

}  // namespace alstm
