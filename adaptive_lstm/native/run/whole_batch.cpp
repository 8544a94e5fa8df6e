#include "run/whole_batch.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "kernels/tuning.h"
#include "run/thread_pool.h"

namespace alstm {

int block_rows(const Plan& plan, int steps) {
  ptrdiff_t widest = plan.input();
  for (size_t l = 0; l < plan.layers().size(); l++)
    widest = std::max(widest, padded(ptrdiff_t(plan.output(int(l))) * plan.directions()));
  const ptrdiff_t row_bytes = std::max<ptrdiff_t>(1, steps) * widest * ptrdiff_t(sizeof(float));
  return int(std::clamp<ptrdiff_t>(kBlockBytes / row_bytes, kLeastBlockRows, kMostBlockRows));
}

namespace {

// Where blocks of rows start that threads share out, and the number of rows: blocks as large as they may be, and as
// alike in rows times timesteps.
std::vector<int> cut(const WholeBatch& batch, int block, int threads) {
  const int rounds = (batch.rows + threads * block - 1) / (threads * block), pieces = rounds * threads;
  int64_t left = 0;  // rows times timesteps
  for (int t = 0; t < batch.steps; t++) left += batch.sizes ? batch.sizes[t] : batch.rows;
  std::vector<int> starts{0};
  int length = batch.steps, piece = 0;
  int64_t share = left / pieces, own = 0;
  for (int b = 0; b < batch.rows; b++) {
    while (batch.sizes && length && batch.sizes[length - 1] <= b) length--;
    const int rows = b - starts.back();
    if (rows && (rows == block || (own >= share && piece + 1 < pieces))) {
      starts.push_back(b);
      piece++;
      left -= own;
      share = left / std::max(1, pieces - piece);
      own = 0;
    }
    own += length;
  }
  starts.push_back(batch.rows);
  return starts;
}

// Rows [first, first + n) of a batch; see run_whole.
bool run_block(StackState& state, const WholeBatch& batch, int first, int n, const RunOptions& options) {
  state.restart(n);
  if (batch.h_0.base && !state.load(batch.h_0.from_row(first), batch.c_0.from_row(first), options.check)) return false;
  if (!state.run_rows(batch.x, batch.y, batch.steps, batch.sizes, first, options)) return false;
  state.store(batch.h_n.from_row(first), batch.c_n.from_row(first));
  return true;
}

// Threads for blocks of rows, `most` at most; 1: the rows are too few, or must run together to give the same bits.
int row_threads(const StackState& state, int rows, int block, int most) {
  const int least = state.batch().decides_by_chunk() ? block : kLeastThreadRows;
  return std::clamp(rows / least, 1, std::max(1, most));
}

// Threads that a batch has work for, `most` at most.
int useful_threads(const StackState& state, const WholeBatch& batch, int block, int most) {
  if (!worth_waking(bytes_read(state.plan(), batch.rows, batch.steps))) return 1;
  const int by_rows = row_threads(state, batch.rows, block, most);
  return by_rows > 1 ? by_rows : state.threads(std::min(block, batch.rows), batch.steps, most);
}

bool run_rows_together(StackState& state, const WholeBatch& batch, int block, const RunOptions& options, int threads) {
  std::vector<int> starts;
  if (state.batch().decides_by_chunk())
    for (int first = 0; first < batch.rows + block; first += block) starts.push_back(std::min(first, batch.rows));
  else
    starts = cut(batch, block, threads);
  for (int i = 1; i < threads; i++) state.helper(size_t(i - 1)).clear_counters();
  std::atomic<size_t> next{0};
  std::atomic<bool> refused{false};
  run_together(threads, [&](int who) {
    StackState& own = who ? state.helper(size_t(who - 1)) : state;
    for (size_t i; (i = next.fetch_add(1)) + 1 < starts.size() && !refused;)
      if (!run_block(own, batch, starts[i], starts[i + 1] - starts[i], options)) refused = true;
  });
  for (int i = 1; i < threads; i++) state.add_counters(state.helper(size_t(i - 1)));
  return !refused;
}

}  // namespace

bool worth_waking(double bytes_read) { return bytes_read >= kLeastTogether; }

bool run_whole(StackState& state, const WholeBatch& batch, int block, bool check, int threads) {
  state.clear_counters();
  RunOptions options;
  options.check = check;
  const int by_rows = threads > 1 ? row_threads(state, batch.rows, block, threads) : 1;
  if (by_rows > 1) {
    const bool done = run_rows_together(state, batch, block, options, by_rows);
    state.threads_of_last_run = by_rows;
    return done;
  }
  options.threads = threads;
  for (int first = 0; first < batch.rows || first == 0; first += block)
    if (!run_block(state, batch, first, std::min(block, batch.rows - first), options)) return false;
  return true;
}

bool run_fastest(StackState& state, const WholeBatch& batch, bool check, ThreadRace* race, int most) {
  const int block = block_rows(state.plan(), batch.steps);
  if (most > 1) most = useful_threads(state, batch, block, most);
  if (most == 1 || !race) return run_whole(state, batch, block, check, most);
  const int threads = race->turn(batch.rows, batch.steps, most);
  const auto start = std::chrono::steady_clock::now();
  const bool done = run_whole(state, batch, block, check, threads);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (done) race->served(batch.rows, batch.steps, threads, took.count());
  return done;
}

}  // namespace alstm
