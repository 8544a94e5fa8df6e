#include "run/thread_race.h"

#include <algorithm>

namespace alstm {

namespace {

int size_class(int n, int classes) {
  int log = 0;
  while (n > 1 && log + 1 < classes) {
    n = (n + 1) / 2;
    log++;
  }
  return log;
}

}  // namespace

ThreadRace::Entry& ThreadRace::entry(int rows, int steps) {
  return entries_[size_class(rows, kRows)][size_class(steps, kSteps)];
}

int ThreadRace::turn(int rows, int steps, int most) {
  Entry& e = entry(rows, steps);
  if (e.most.load(std::memory_order_relaxed) != most) {
    e.calls.store(0, std::memory_order_relaxed);
    e.one.store(std::numeric_limits<float>::infinity(), std::memory_order_relaxed);
    e.many.store(std::numeric_limits<float>::infinity(), std::memory_order_relaxed);
    e.most.store(most, std::memory_order_relaxed);
  }
  const int calls = e.calls.load(std::memory_order_relaxed);
  if (calls < 2 * kRounds) {
    e.calls.store(calls + 1, std::memory_order_relaxed);
    return calls % 2 ? 1 : most;
  }
  return e.many.load(std::memory_order_relaxed) < kPays * e.one.load(std::memory_order_relaxed) ? most : 1;
}

void ThreadRace::served(int rows, int steps, int threads, double seconds) {
  Entry& e = entry(rows, steps);
  std::atomic<float>& least = threads > 1 ? e.many : e.one;
  const float each = float(seconds / (double(rows) * steps));
  least.store(std::min(least.load(std::memory_order_relaxed), each), std::memory_order_relaxed);
}

}  // namespace alstm
