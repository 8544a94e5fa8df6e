// Everything that a state remembers, as numpy arrays in batch order: read at once, and checked at once before any of it
// is set.
#pragma once

#include <tuple>
#include <vector>

#include "bind/bind.h"
#include "run/stack_state.h"

namespace alstm {

template <class T>
using Values = std::optional<nb::ndarray<T, nb::c_contig, nb::device::cpu>>;  // of any shape; none: not remembered

// Of one cell: x_used [B, I], h_used [B, P], run [B], gates [B, 4H] in torch order, queue [B, cap, I], queued [B].
template <class Float, class Int>
using HoldValues = std::tuple<Values<Float>, Values<Float>, Values<Int>, Values<Float>, Values<Float>, Values<Int>>;
// time [B], exited [B], translation [B, P], streak [B], past [B, window, P].
template <class Float, class Int, class Bool>
using ExitValues = std::tuple<Values<Int>, Values<Bool>, Values<Float>, Values<Int>, Values<Float>>;

using SentValues = std::vector<Values<float>>;             // of every cell [B, C]
using GivenSentValues = std::vector<Values<const float>>;  // the same to be read
using AllHoldValues = std::vector<HoldValues<float, int64_t>>;
using AllGivenHoldValues = std::vector<HoldValues<const float, const int64_t>>;
using TimeExitValues = std::optional<ExitValues<float, int64_t, bool>>;
using GivenTimeExitValues = std::optional<ExitValues<const float, const int64_t, const bool>>;

// Copies a state into arrays of the right shapes, for all that its policy makes it remember. Returns whether it has
// started; if not, it remembers h and c only.
bool read_state(const StackState& state, Values<float> h, Values<float> c, const SentValues& sent_x,
                const SentValues& sent_h, const AllHoldValues& hold, const TimeExitValues& exit);

// Sets a state of h.shape[1] rows; counters start again. Arrays that are None, and lists that are empty, stand for a
// state that has not started. Throws with the state as it was.
void write_state(StackState& state, Values<const float> h, Values<const float> c, const GivenSentValues& sent_x,
                 const GivenSentValues& sent_h, const AllGivenHoldValues& hold, const GivenTimeExitValues& exit);

}  // namespace alstm
