// The turns of threads with a state (run/turn.h) as guards.
#pragma once

#include "bind/bind.h"
#include "run/stack_state.h"

namespace alstm {

// To advance or set a state.
class Exclusive {
 public:
  explicit Exclusive(StackState& state) : turn_(state.turn) {
    if (!turn_.take()) throw Busy("this stream is being advanced by another thread; give every thread its own stream");
  }
  ~Exclusive() { turn_.give_back(); }
  Exclusive(const Exclusive&) = delete;

 private:
  Turn& turn_;
};

// To read a state: waits while another thread advances it. The turn is taken and given back with the GIL held, which
// is released to wait: so nobody holds one of the two and waits for the other.
class Reading {
 public:
  explicit Reading(const StackState& state) : turn_(state.turn) {
    while (!turn_.take_to_read()) {
      nb::gil_scoped_release others_run;
      turn_.wait();
    }
  }
  ~Reading() { turn_.give_back(); }
  Reading(const Reading&) = delete;

 private:
  Turn& turn_;
};

}  // namespace alstm
