// Whether several threads serve calls of a stack faster than one, by the clock: the first calls of a size run with
// either in turn, and the faster one stays. Results are the same, so no call is made for the race alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

namespace alstm {

class ThreadRace {
 public:
  static constexpr int kRounds = 3;  // calls of each

  // How many threads should serve the next call of so many batch rows and timesteps: 1 or `most`.
  int turn(int rows, int steps, int most);
  // It took so many seconds.
  void served(int rows, int steps, int threads, double seconds);

 private:
  static constexpr float kPays = 0.95f;          // of the time of one thread, or it is not worth the cores
  static constexpr int kRows = 12, kSteps = 20;  // sizes are told apart by powers of two up to these

  // Threads that race may get a little wrong which call was whose; no more depends on it than speed.
  struct Entry {
    std::atomic<int> most{0}, calls{0};
    std::atomic<float> one{}, many{};  // the least seconds per row and timestep
  };
  Entry& entry(int rows, int steps);

  Entry entries_[kRows][kSteps];
};

}  // namespace alstm
