// What a call of a module is given, as memory.
#pragma once

#include <array>
#include <memory>

#include "bind/torch.h"
#include "run/stack_state.h"

namespace alstm {

// h_0 and c_0 are kept alive while others may run, for they may come in a list.
struct Given {
  Plain x, h_0, c_0;
  std::array<nb::object, 2> states;
  int time = 0, row = -1;  // the dimensions of x; -1: it has none for these
  int rows = 1, steps = 0;
};

// A tensor with its features side by side; where they lie apart, as in a spectrogram that was transposed, a copy that
// `memory` keeps.
inline Plain side_by_side(const Plain& x, std::unique_ptr<float[]>& memory) {
  if (x.dense()) return x;
  const int last = x.dims - 1;
  const int64_t width = x.size[last], apart = x.stride[last], inner = x.size[last - 1];
  const int64_t outer = x.dims == 3 ? x.size[0] : 1, between = x.dims == 3 ? x.stride[0] : 0;
  memory.reset(new float[size_t(outer * inner * width)]);
  float* to = memory.get();
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++, to += width) {
      const float* from = x.data + o * between + i * x.stride[last - 1];
      for (int64_t k = 0; k < width; k++) to[k] = from[k * apart];
    }
  Plain out = x;
  out.data = memory.get();
  out.stride[last] = 1;
  out.stride[last - 1] = width;
  if (x.dims == 3) out.stride[0] = inner * width;
  return out;
}

// row: the dimension of its rows; negative: it has none.
inline Rows<const float> rows_of(const Plain& state, int row) {
  return {state.data, state.stride[0], row < 0 ? 0 : state.stride[row]};
}

}  // namespace alstm
