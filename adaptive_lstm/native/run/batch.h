// A batch of sequences: the states of all cells, and where the batch's rows lie in them.
#pragma once

#include "run/ahead.h"
#include "run/hold_state.h"
#include "run/rows.h"

namespace alstm {

// What one cell has reached in every batch row.
struct CellState {
  const Cell* cell = nullptr;     // its weights
  const Hold* decider = nullptr;  // decides whether the cell is held; null: as the layer below
  Buffer<float> h, c;             // [B, h_stride], [B, units]
  int h_stride = 0, units = 0;
  Operand x, recurrent;
  HoldState hold;
  Ahead ahead;
  // Whether h may exceed the 1 that integers reach in some row: it was given, is a translation, or is projected. What a
  // cell computes otherwise does not.
  bool may_exceed = false;
  int64_t ran = 0, advanced = 0;  // batch rows times timesteps with matrix work, and in which h and c advanced

  void reset(int batch, bool holds);
  void h_is_given() {
    may_exceed = recurrent.view().format == Format::int8;
    ahead.ready = false;
  }
  int rows() const { return int(h.size() / size_t(h_stride)); }
  float* h_row(ptrdiff_t b) { return h.data() + b * h_stride; }
  const float* h_row(ptrdiff_t b) const { return h.data() + b * h_stride; }
  float* c_row(ptrdiff_t b) { return c.data() + b * units; }
  const float* c_row(ptrdiff_t b) const { return c.data() + b * units; }
  template <class F>
  void each_array(F&& f) {  // everything that is kept per batch row
    f(h);
    f(c);
    x.delta.each_array(f);
    recurrent.delta.each_array(f);
    hold.each_array(f);
  }
};

// Rows that have exited are moved behind the others, so a row's position may differ from its number in the batch.
class Batch {
 public:
  Batch(const Plan& plan, const Policy& policy);
  void reset(int size);  // zero states, nothing sent or held; counters go on
  void clear_counters();
  void add_counters(const Batch& other);

  // h: [L * D, B, P], c: [L * D, B, H], contiguous, in batch order.
  void load(const float* h, const float* c);
  void store(float* h, float* c) const;
  void store_h(float* h) const;
  // The same as rows in memory, cells `time` apart; all layers are of one width.
  void load(const Rows<const float>& h, const Rows<const float>& c);
  void store(const Rows<float>& h, const Rows<float>& c) const;
  // Sets h of pruned units to their constants again where load() may have overwritten it.
  void restore_constants();
  bool constants_restored() const { return !loaded_; }
  void forget_ahead();

  // Whether the rows and timesteps of a chunk decide together about the order of float sums: whether they are made of
  // single columns.
  bool decides_by_chunk() const;

  int size() const { return size_; }
  int active() const { return active_; }  // the rows at the first positions, which have not exited, in ascending order
  int row_at(int position) const { return order_[position]; }
  int active_below(int64_t n) const;  // how many of the first n rows of the batch are active
  std::vector<std::vector<CellState>>& layers() { return layers_; }
  const std::vector<std::vector<CellState>>& layers() const { return layers_; }
  std::vector<CellState>& top() { return layers_.back(); }

  // Room for a regroup(): made by reset() where the policy may exit.
  void make_room();
  size_t bytes() const;  // of everything that is kept per batch row

  // Row `to` becomes row `from` of another batch of the same plan and policy. Both must be in order: active() ==
  // size().
  void take(int to, const Batch& other, int from);

  template <class F>
  void regroup(F&& stays);  // moves active positions for which it is false behind those for which it is true
  void rejoin();            // all rows back to their own positions

 private:
  void load_cell(CellState& s, const Rows<const float>& h, const Rows<const float>& c);
  void store_cell(const CellState& s, const Rows<float>& h, const Rows<float>& c) const;
  void reorder(const std::vector<int>& from);  // position i takes the row at from[i]
  template <class F>
  void each_array(F&& f) {
    for (auto& layer : layers_)
      for (CellState& s : layer) s.each_array(f);
  }

  std::vector<std::vector<CellState>> layers_;  // [l][d]
  bool holds_, exits_;                          // what the policy may do
  int size_ = 0, active_ = 0;
  bool loaded_ = false;              // h of pruned units may differ from their constants
  std::vector<int> order_;           // [B] which batch row lies at a position
  std::vector<int> from_;            // [B] a new order
  std::vector<uint8_t> mark_, row_;  // scratch of reorder()
};

template <class F>
void Batch::regroup(F&& stays) {
  from_.clear();
  for (int i = 0; i < active_; i++)
    if (stays(i)) from_.push_back(i);
  const int stay = int(from_.size());
  if (stay == active_) return;
  for (int i = 0; i < active_; i++)
    if (!stays(i)) from_.push_back(i);
  for (int i = active_; i < size_; i++) from_.push_back(i);
  reorder(from_);
  for (int& i : from_) i = order_[i];
  order_.swap(from_);
  active_ = stay;
}

}  // namespace alstm
