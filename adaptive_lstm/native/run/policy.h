// What a run may leave out, as plain data: columns, timesteps, layers, the rest of a sequence. The folder policies/
// documents the rules; here are their numbers and packed matrices.
#pragma once

#include <optional>

#include "pack/plan.h"

namespace alstm {

// Largest settings: of numbers of timesteps and checks, two of which add up in 32 bits; of vectors that are kept for
// every batch row. policies/counts.py has the same.
constexpr int64_t kLongest = int64_t(1) << 30, kMostKept = 4096;
// Largest counts in a state that is given. The rest of the 64 bits lasts for centuries.
constexpr int64_t kMostCounted = int64_t(1) << 62;
constexpr int kMostRows = 1 << 26;  // of a batch

// A root mean square change below is none: floats of that size are zeros to some executors. policies/change.py has the
// same.
constexpr double kMinChange = 0x1p-90;

// Thresholds of one cell; an empty operand computes every column at every timestep.
struct Thresholds {
  Buffer<float> x, h;  // [I], [P]
};

// Action of one batch row at one timestep: compute; reuse the gates and advance h and c; keep h and c; keep them and
// queue the input to replay it later; take the translation of an exit in depth.
enum Action : uint8_t { kRun, kHoldGates, kHoldState, kQueueInput, kExited };

// A layer that decides whether it is held, and with it all layers above.
struct Hold {
  std::optional<double> x;     // held while rms(x - x_used) < x * rms(x_used); none: no condition
  std::optional<double> h;     // and while rms(h - h_used) < h
  int64_t cap = 1;             // longest run of held timesteps
  Action action = kHoldGates;  // or kHoldState or kQueueInput
};

// y = weight z + bias, packed like a projection: y needs room for view().rows values.
struct Affine {
  std::shared_ptr<const PackedMatrix> weight;
  Buffer<float> bias;  // [R]
  Buffer<float> few;   // [C, rows(), rounded up to 16]: the weights again where rows are few; else empty
  int rows() const { return weight->source_rows(); }
  int cols() const { return weight->source_cols(); }
  ptrdiff_t stride() const { return ptrdiff_t(bias.size()) + 16; }  // between rows of results, as padded()
};

// Fills Affine::few from the map's weight [rows(), C], if there are few rows.
void keep_few_rows(Affine& map, const float* weight);

enum class Measure : uint8_t { margin, max, entropy };

// How logits are read.
struct Head {
  bool sigmoid = false;  // independent binary outputs, of which the least confident counts; else a softmax
  Measure measure = Measure::margin;
};

// Early exit in time: skip the rest of a sequence. With a head, an exit check is one map from the states to logits (the
// translator folded in), and the translation is computed only for rows that exit; without, the check compares
// translations.
struct TimeExit {
  int every = 1, patience = 1, window = 0;
  std::optional<Head> head;
  std::vector<int64_t> threshold_starts, map_starts;  // first timesteps of the buckets
  std::vector<float> thresholds;
  std::vector<Affine> translations;  // [L * P] -> [P] per bucket; empty: the top layer's state as it is
  std::vector<Affine> logits;        // [L * P] (or [P]) -> [C] per bucket; empty without a head
};

// Early exit in depth: skip the layers above. steps: maps of outputs at any timestep; finals: of final states.
struct DepthExit {
  bool sequence = false;  // whole sequences exit, else single timesteps
  std::optional<Head> head;
  std::vector<uint8_t> checks;    // [L - 1] whether there is an exit check after the layer
  std::vector<float> thresholds;  // [L - 1]
  std::vector<Affine> steps;      // [L - 1] [(k + 1) * D * P] -> [D * P]
  std::vector<Affine> finals;     // the same, for `sequence`
  std::vector<Affine> logits;     // [L - 1], of finals for `sequence`, else of steps; empty without a head
};

struct Policy {
  std::vector<std::vector<Thresholds>> columns;  // [l][d]; no layers = dense
  std::vector<std::optional<Hold>> hold;         // [l], none: as the layer below; no layers = nothing is held
  std::optional<TimeExit> time_exit;
  std::optional<DepthExit> depth_exit;

  bool holds() const { return !hold.empty(); }
  bool holds_gates() const {
    for (const auto& h : hold)
      if (h && h->action == kHoldGates) return true;
    return false;
  }
  const Hold* decider(int layer) const { return holds() && hold[layer] ? &*hold[layer] : nullptr; }
  int64_t queue() const {  // longest queue of inputs, 0: there is none
    for (const auto& h : hold)
      if (h && h->action == kQueueInput) return h->cap;
    return 0;
  }
  bool exits_steps() const { return depth_exit && !depth_exit->sequence; }
  bool exits_sequences() const { return depth_exit && depth_exit->sequence; }
};

}  // namespace alstm
