// Every layer over some timesteps, by several threads.
//
// A cell's chunks come one after the other, whoever runs them, and every chunk is computed as one thread would compute
// it: so results have the same bits. What lies between two layers is written once it is no longer read: the layer above
// the next may write a chunk only after the next has read it.
#include <algorithm>

#include "kernels/tuning.h"
#include "run/cell_parts.h"
#include "run/layers.h"
#include "run/thread_pool.h"
#include "run/wave.h"

namespace alstm {

int Layers::threads(int rows, int steps, int most) const {
  if (policy_.holds() || policy_.time_exit || policy_.depth_exit) return 1;
  const int layers = int(plan_.layers().size());
  for (int l = 1; l < layers; l++)
    if (width(l) != width(0)) return 1;  // they share the memory between two layers
  return std::max(wave_threads(rows, steps, most), part_threads(most));
}

int Layers::wave_threads(int rows, int steps, int most) const {
  if (plan_.directions() > 1) return std::min(most, plan_.directions());
  const int chunk = wave_steps(rows, steps), chunks = (steps + chunk - 1) / chunk;
  return std::min({most, int(plan_.layers().size()), chunks});
}

int Layers::part_threads(int most) const {
  if (plan_.directions() > 1) return 1;
  for (const auto& layer : batch_.layers()) most = std::min(most, most_parts(layer[0]));
  return most;
}

// Timesteps of a chunk: many chunks keep threads busy from early on, but some have to be those of one thread.
int Layers::wave_steps(int rows, int steps) const {
  const int most = chunk_steps(rows);
  if (batch_.decides_by_chunk()) return most;
  return std::clamp(steps / kWaveChunks, std::min(kLeastWaveSteps, most), most);
}

int Layers::run_together(const Rows<const float>& x, const Rows<float>& y, RowLayout& layout, int threads) {
  snapshots_ = nullptr;
  batch_.restore_constants();
  if (scratch_.size() < size_t(threads)) scratch_.resize(size_t(threads));
  for (Scratch& scratch : scratch_) scratch.grow(batch_, layout.rows != nullptr);
  if (wave_threads(batch_.size(), layout.steps(), threads) >= threads) {
    run_wave(x, y, layout, threads);
  } else if (!exceeds()) {
    run_parts(x, y, layout, threads);
  } else {
    run(x, y, layout);
    return 1;
  }
  return threads;
}

// Whether h of a row exceeds what its integers reach, so that the row has a range of its own.
bool Layers::exceeds() {
  for (auto& layer : batch_.layers())
    for (CellState& s : layer) {
      for (int b = 0; s.may_exceed && b < s.rows(); b++)
        if (scratch_[0].operand.largest(kernels_, *s.cell->w_hh, s.h_row(b)) > 1.0f) return true;
      s.may_exceed = false;
    }
  return false;
}

void Layers::run_parts(const Rows<const float>& x, const Rows<float>& y, const RowLayout& layout, int threads) {
  Rows<const float> in = x;
  const int top = int(plan_.layers().size()) - 1;
  for (int l = 0; l <= top; l++) {
    const Rows<float> out = l < top ? output(l).rows(layout, padded(width(l))) : y;
    CellParts parts(batch_.layers()[l][0], kernels_, scratch_, threads, in, out, layout, tick_);
    alstm::run_together(threads, [&](int who) { parts.run(who); });
    parts.count();
    in = out;
  }
}

void Layers::run_wave(const Rows<const float>& x, const Rows<float>& y, const RowLayout& layout, int threads) {
  const int layers = int(plan_.layers().size()), directions = plan_.directions(), steps = layout.steps();
  std::vector<Rows<float>> out;
  for (int l = 0; l + 1 < layers; l++) out.push_back(output(l).rows(layout, padded(width(l))));
  out.push_back(y);
  const int chunk = directions > 1 ? steps : wave_steps(batch_.size(), steps);
  Wave wave(layers, directions, (steps + chunk - 1) / chunk);
  const auto run = [&](const Wave::Task& task, int who) {
    const auto [l, d, k] = task;
    CellState& state = batch_.layers()[l][d];
    CellRun cell{*state.cell, state, kernels_, scratch_[who], d > 0, tick(state), false};
    const Rows<const float> in = l ? Rows<const float>(out[l - 1]) : x;
    const Rows<float> own = out[l].from_column(ptrdiff_t(d) * state.cell->output);
    if (directions > 1)
      run_cell(cell, l, in, own, layout);
    else
      run_chunk(cell, l, in, own, layout, k * chunk, std::min(steps, (k + 1) * chunk));
  };
  alstm::run_together(threads, [&](int who) {
    try {
      while (const std::optional<Wave::Task> task = wave.next()) {
        run(*task, who);
        wave.done(*task);
      }
    } catch (...) {
      wave.failed();
      throw;
    }
  });
}

}  // namespace alstm
