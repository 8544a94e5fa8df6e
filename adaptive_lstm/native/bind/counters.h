// What a state has counted, as Python is given it.
#pragma once

#include "bind/bind.h"
#include "run/stack_state.h"

namespace alstm {

// Per cell: columns of x sent, columns of h sent, row steps that ran, row steps that advanced. Then exit checks in
// time, rows that exited, and per layer exit checks in depth and translated timesteps. Then timesteps of all rows.
using Counters = std::tuple<std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>,
                            std::tuple<int64_t, int64_t, std::vector<int64_t>, std::vector<int64_t>>, int64_t>;

// All of one moment.
Counters counters(const StackState& state);

// What a monitor watches: shares of the columns that were computed, of the cells' timesteps with matrix work, and of
// the rows that exited.
struct Rates {
  double activity, ran, exits;
};

// Of a run of so many timesteps of all rows together, after which the counters were cleared. columns: of all cells.
Rates rates(const StackState& state, int64_t columns, int64_t timesteps, int rows);

// Counters of a run, which Python puts together when somebody asks: that takes as long as a short sequence.
class Counted {
 public:
  // together: (columns, exits, timesteps) -> what the call returns.
  Counted(const StackState& state, nb::object together, int64_t timesteps)
      : counters_(counters(state)), together_(std::move(together)), timesteps_(timesteps) {}
  nb::object operator()() const { return together_(std::get<0>(counters_), std::get<1>(counters_), timesteps_); }

  template <class Visit>
  int each_object(Visit visit) const {
    return visit(together_);
  }

 private:
  Counters counters_;
  nb::object together_;
  int64_t timesteps_;
};

}  // namespace alstm
