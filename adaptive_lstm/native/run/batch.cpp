#include "run/batch.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "run/rows.h"

namespace alstm {

void CellState::reset(int batch, bool holds) {
  h.assign(size_t(batch) * h_stride, 0.0f);
  c.assign(size_t(batch) * units, 0.0f);
  if (x.thresholded()) x.delta.reset(x.view(), batch);
  if (recurrent.thresholded()) recurrent.delta.reset(recurrent.view(), batch);
  if (holds) hold.reset(*cell, decider, batch);
  x.activity = 0;
  may_exceed = ahead.ready = false;
  if (cell->w_hr) h_is_given();
}

Batch::Batch(const Plan& plan, const Policy& policy)
    : holds_(policy.holds()), exits_(policy.time_exit.has_value() || policy.depth_exit.has_value()) {
  for (size_t l = 0; l < plan.layers().size(); l++) {
    layers_.emplace_back(plan.layers()[l].size());
    for (size_t d = 0; d < layers_[l].size(); d++) {
      CellState& s = layers_[l][d];
      s.cell = &plan.layers()[l][d];
      s.decider = policy.decider(int(l));
      s.units = s.cell->units();
      s.h_stride = int(padded(s.cell->w_hr ? s.cell->w_hr->view().rows : round_up(s.cell->hidden, kUnits)));
      const Thresholds* thresholds = policy.columns.empty() ? nullptr : &policy.columns[l][d];
      s.x.attach(*s.cell->w_ih, thresholds ? &thresholds->x : nullptr);
      s.recurrent.attach(*s.cell->w_hh, thresholds ? &thresholds->h : nullptr);
    }
  }
}

void Batch::reset(int size) {
  size_ = active_ = size;
  order_.resize(size);
  std::iota(order_.begin(), order_.end(), 0);
  for (auto& layer : layers_)
    for (CellState& s : layer) s.reset(size, holds_);
  loaded_ = true;
  restore_constants();
  if (exits_) make_room();
}

void Batch::make_room() {
  from_.reserve(size_);
  mark_.reserve(size_);
  size_t row = 0;
  each_array([&](auto& array) { row = std::max(row, array.size() / std::max(size_, 1) * sizeof(array[0])); });
  if (row_.size() < row) row_.resize(row);
}

void Batch::clear_counters() {
  for (auto& layer : layers_)
    for (CellState& s : layer) {
      s.x.sent = s.recurrent.sent = 0;
      s.ran = s.advanced = 0;
    }
}

void Batch::add_counters(const Batch& other) {
  for (size_t l = 0; l < layers_.size(); l++)
    for (size_t d = 0; d < layers_[l].size(); d++) {
      CellState& s = layers_[l][d];
      const CellState& more = other.layers_[l][d];
      s.x.sent += more.x.sent;
      s.recurrent.sent += more.recurrent.sent;
      s.ran += more.ran;
      s.advanced += more.advanced;
    }
}

bool Batch::decides_by_chunk() const {
  for (const auto& layer : layers_)
    for (const CellState& s : layer)
      if (s.x.thresholded() && s.x.view().format != Format::int8) return true;
  return false;
}

void Batch::restore_constants() {
  if (!loaded_) return;
  for (auto& layer : layers_)
    for (CellState& s : layer)
      for (int i = 0; i < active_; i++) s.cell->set_constants(s.h_row(i));
  loaded_ = false;
}

void Batch::load(const float* h, const float* c) {
  for (auto& layer : layers_)
    for (CellState& s : layer) {
      load_cell(s, {h, 0, s.cell->output}, {c, 0, s.cell->hidden});
      h += size_t(size_) * s.cell->output;
      c += size_t(size_) * s.cell->hidden;
    }
}

void Batch::store(float* h, float* c) const {
  for (const auto& layer : layers_)
    for (const CellState& s : layer) {
      store_cell(s, {h, 0, s.cell->output}, {c, 0, s.cell->hidden});
      h += size_t(size_) * s.cell->output;
      c += size_t(size_) * s.cell->hidden;
    }
}

void Batch::load(const Rows<const float>& h, const Rows<const float>& c) {
  ptrdiff_t number = 0;
  for (auto& layer : layers_)
    for (CellState& s : layer) {
      load_cell(s, {h.at(number, 0), 0, h.row}, {c.at(number, 0), 0, c.row});
      number++;
    }
}

void Batch::store(const Rows<float>& h, const Rows<float>& c) const {
  ptrdiff_t number = 0;
  for (const auto& layer : layers_)
    for (const CellState& s : layer) {
      store_cell(s, {h.at(number, 0), 0, h.row}, {c.at(number, 0), 0, c.row});
      number++;
    }
}

void Batch::load_cell(CellState& s, const Rows<const float>& h, const Rows<const float>& c) {
  const Cell& cell = *s.cell;
  for (int i = 0; i < size_; i++) {
    std::memcpy(s.h_row(i), h.at(0, order_[i]), cell.output * sizeof(float));
    const float* all = c.at(0, order_[i]);
    for (size_t k = 0; k < cell.live.size(); k++) s.c_row(i)[k] = all[cell.live[k]];
  }
  s.h_is_given();
  loaded_ = loaded_ || cell.pruned();
}

void Batch::store_cell(const CellState& s, const Rows<float>& h, const Rows<float>& c) const {
  const Cell& cell = *s.cell;
  for (int i = 0; i < size_; i++) {
    std::memcpy(h.at(0, order_[i]), s.h_row(i), cell.output * sizeof(float));
    float* all = c.at(0, order_[i]);
    if (cell.pruned()) std::memset(all, 0, cell.hidden * sizeof(float));
    for (size_t k = 0; k < cell.live.size(); k++) all[cell.live[k]] = s.c_row(i)[k];
  }
}

void Batch::store_h(float* h) const {
  for (const auto& layer : layers_)
    for (const CellState& s : layer) {
      const size_t width = size_t(s.cell->output);
      for (int i = 0; i < size_; i++) std::memcpy(h + order_[i] * width, s.h_row(i), width * sizeof(float));
      h += size_ * width;
    }
}

size_t Batch::bytes() const {
  size_t all = 0;
  const_cast<Batch*>(this)->each_array([&](auto& array) { all += array.capacity() * sizeof(array[0]); });
  for (const auto& layer : layers_)
    for (const CellState& s : layer) all += s.ahead.bytes();
  return all;
}

int Batch::active_below(int64_t n) const {
  return int(std::lower_bound(order_.begin(), order_.begin() + active_, n) - order_.begin());
}

void Batch::rejoin() {
  if (active_ == size_) return;
  from_.resize(size_);
  for (int i = 0; i < size_; i++) from_[order_[i]] = i;
  reorder(from_);
  std::iota(order_.begin(), order_.end(), 0);
  active_ = size_;
}

void Batch::forget_ahead() {
  for (auto& layer : layers_)
    for (CellState& s : layer) s.ahead.ready = false;
}

void Batch::reorder(const std::vector<int>& from) {
  forget_ahead();
  const int n = int(from.size());
  each_array([&](auto& array) {
    if (array.empty()) return;
    const size_t row = array.size() / size_t(size_) * sizeof(array[0]);
    uint8_t* data = reinterpret_cast<uint8_t*>(array.data());
    mark_.assign(n, 0);
    for (int i = 0; i < n; i++) {  // cycle by cycle
      if (mark_[i] || from[i] == i) continue;
      std::memcpy(row_.data(), data + i * row, row);
      int to = i;
      for (; from[to] != i; to = from[to]) {
        std::memcpy(data + to * row, data + from[to] * row, row);
        mark_[to] = 1;
      }
      std::memcpy(data + to * row, row_.data(), row);
      mark_[to] = 1;
    }
  });
}

}  // namespace alstm
