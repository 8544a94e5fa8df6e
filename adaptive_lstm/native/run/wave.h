// The cells of a run as tasks for several threads: chunks of timesteps, each after the cell's chunk before and after
// what it reads of the layer below.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

namespace alstm {

class Wave {
 public:
  struct Task {
    int layer, direction, chunk;
  };
  // Of one direction a chunk follows the same chunk of the layer below; of two, which read all of it, there is one.
  Wave(int layers, int directions, int chunks);

  // A task for this thread, as soon as there is one; none: all are taken, or a task has failed.
  std::optional<Task> next();
  void done(const Task& task);
  void failed();  // nobody is given another task

 private:
  struct Cell {
    int done = 0;  // chunks
    bool taken = false;
  };
  Cell& cell(int layer, int direction) { return cells_[size_t(layer) * directions_ + direction]; }
  bool ready(int layer, int direction);
  std::optional<Task> take();

  const int layers_, directions_, chunks_;
  int left_;                        // tasks that nobody has taken
  std::vector<Cell> cells_;         // [L * D]
  std::atomic<unsigned> moves_{0};  // grows with every task that ends
  std::mutex mutex_;
  std::condition_variable moved_;
};

}  // namespace alstm
