// Asking: the states that a question is about, and one affine map over many of them.
#include <cstring>

#include "cpu/dispatch.h"
#include "run/stack_state.h"

namespace alstm {

// Into work_.states: outputs of layers 0..layer at the places listed.
void State::gather_outputs(int layer) {
  const ptrdiff_t n = width(layer), stride = padded(n);
  for (size_t i = 0; i < work_.asked.size(); i++) {
    const ptrdiff_t row = work_.start[work_.asked[i].t] + work_.asked[i].b;
    for (int l = 0; l <= layer; l++)
      std::memcpy(work_.states.data() + ptrdiff_t(i) * states_stride() + l * n,
                  work_.level[l].data.data() + row * stride, n * sizeof(float));
  }
}

// Into work_.states: h of the layers `first` to `last` of the rows listed.
void State::gather_states(int first, int last) {
  for (size_t i = 0; i < work_.asked.size(); i++) {
    float* out = work_.states.data() + ptrdiff_t(i) * states_stride();
    for (int l = first; l <= last; l++)
      for (const DirectionState& s : states_[l]) {
        std::memcpy(out, s.h.data() + size_t(work_.asked[i].b) * s.h_stride, plan_->output(l) * sizeof(float));
        out += plan_->output(l);
      }
  }
}

// A map of the first columns of work_.states, of all places listed; rows are map.stride() apart.
const float* State::answer(const Affine& map, Buffer<float>& out) {
  active_kernels().dense(map.weight->view(), work_.states.data(), states_stride(), int(work_.asked.size()),
                         map.bias.data(), out.data(), map.stride(), false);
  return out.data();
}

}  // namespace alstm
