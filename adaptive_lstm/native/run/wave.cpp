#include "run/wave.h"

#include "run/thread_pool.h"

namespace alstm {

Wave::Wave(int layers, int directions, int chunks)
    : layers_(layers),
      directions_(directions),
      chunks_(chunks),
      left_(layers * directions * chunks),
      cells_(size_t(layers) * directions) {}

std::optional<Wave::Task> Wave::next() {
  for (;;) {
    unsigned seen;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!left_) return std::nullopt;
      if (const std::optional<Task> task = take()) return task;
      seen = moves_.load(std::memory_order_relaxed);
    }
    const auto moved = [&] { return moves_.load(std::memory_order_acquire) != seen; };
    if (spin(moved)) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    moved_.wait(lock, moved);
  }
}

// Of the tasks that could start, the one with the longest way behind it: layers above wait for it.
std::optional<Wave::Task> Wave::take() {
  std::optional<Task> best;
  for (int l = 0; l < layers_; l++)
    for (int d = 0; d < directions_; d++) {
      const Cell& c = cell(l, d);
      if (!ready(l, d) || (best && l + c.done >= best->layer + best->chunk)) continue;
      best = Task{l, d, c.done};
    }
  if (!best) return best;
  cell(best->layer, best->direction).taken = true;
  left_--;
  return best;
}

bool Wave::ready(int layer, int direction) {
  const Cell& own = cell(layer, direction);
  if (own.taken || own.done == chunks_) return false;
  for (int d = 0; layer && d < directions_; d++)
    if (cell(layer - 1, d).done <= own.done) return false;
  return true;
}

void Wave::done(const Task& task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    Cell& of = cell(task.layer, task.direction);
    of.taken = false;
    of.done++;
    moves_.fetch_add(1, std::memory_order_release);
  }
  moved_.notify_all();
}

void Wave::failed() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    left_ = 0;
    moves_.fetch_add(1, std::memory_order_release);
  }
  moved_.notify_all();
}

}  // namespace alstm
