// What a run may leave out, as plain data: columns, timesteps, layers, the rest of a sequence. The laws are written
// down in the folder policies/; here are their numbers and packed matrices.
#pragma once

#include <optional>

#include "pack/plan.h"

namespace alstm {

// Thresholds of one operand: empty = every column is computed at every step.
struct Thresholds {
  Buffer<float> x, h;  // [I], [P]
};

// What a row does at a timestep: run; keep its gates and advance; keep its state; keep it and queue the input; take the
// translation that an exit in depth left with.
enum Action : uint8_t { kRun, kHoldGates, kHoldState, kQueueInput, kExited };

// A layer that decides whether it is held, and with it all above it.
struct Hold {
  std::optional<double> x;  // held while rms(x - x_used) < x * rms(x_used); none: no condition
  std::optional<double> h;  // and while rms(h - h_used) < h
  int64_t cap;              // longest run of held timesteps
  Action action;            // kHoldGates, kHoldState or kQueueInput
};

// y = weight z + bias, packed like a projection: y has room for view().rows values.
struct Affine {
  std::shared_ptr<const PackedMatrix> weight;
  Buffer<float> bias;  // [R]
  int rows() const { return weight->source_rows(); }
  int cols() const { return weight->source_cols(); }
  ptrdiff_t stride() const { return ptrdiff_t(bias.size()) + 16; }  // between answers, as padded()
};

enum class Measure : uint8_t { margin, max, entropy };

// How logits are read.
struct Head {
  bool sigmoid;  // independent yes/no answers, of which the least sure one counts; else a softmax
  Measure measure;
};

// Leaving the rest of a sequence. With a head a question is one map from the states to logits (the translator folded
// in), and the translation is computed only for rows that leave; without, the question is the translation itself.
struct TimeExit {
  int every, patience, window;
  std::optional<Head> head;
  std::vector<int64_t> threshold_starts, map_starts;  // first timesteps of the buckets
  std::vector<float> thresholds;
  std::vector<Affine> translations;  // [L * P] -> [P] per bucket; empty: the top layer's state as it is
  std::vector<Affine> logits;        // [L * P] (or [P]) -> [C] per bucket; empty without a head
};

// Leaving the layers above. steps: of outputs at any timestep; finals: of final states.
struct DepthExit {
  bool sequence;  // whole sequences leave, or single timesteps
  std::optional<Head> head;
  std::vector<uint8_t> asks;      // [L - 1]
  std::vector<float> thresholds;  // [L - 1]
  std::vector<Affine> steps;      // [L - 1] [(k + 1) * D * P] -> [D * P]
  std::vector<Affine> finals;     // the same, for `sequence`
  std::vector<Affine> logits;     // [L - 1], of finals for `sequence`, else of steps; empty without a head
};

struct Policy {
  std::vector<std::vector<Thresholds>> columns;  // [l][d]; no layers = dense
  std::vector<std::optional<Hold>> hold;         // [l], none: as the layer below; no layers = nothing is held
  std::optional<TimeExit> time;
  std::optional<DepthExit> depth;

  bool holds() const { return !hold.empty(); }
  const Hold* decider(int layer) const { return holds() && hold[layer] ? &*hold[layer] : nullptr; }
  int64_t queue() const {  // longest queue of inputs that wait, 0: there is none
    for (const auto& h : hold)
      if (h && h->action == kQueueInput) return h->cap;
    return 0;
  }
  bool leaves_steps() const { return depth && !depth->sequence; }
  bool leaves_sequences() const { return depth && depth->sequence; }
};

}  // namespace alstm
