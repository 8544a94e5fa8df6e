// Sending columns: an operand's estimate of its values, and W times that estimate, are kept up to date by differences.
#pragma once

#include "run/delta_state.h"
#include "run/float_product.h"

namespace alstm {

// The columns of one row of an operand that are sent, and by how much they differ from the values last sent.
class ChangeList {
 public:
  void grow(int rows, int cols);

  // Lists the columns of z that are further than their thresholds from the values last sent for row b, and stores them
  // as sent. Returns how many there are.
  int list(const Kernels& kernels, Operand& operand, int b, const float* z);

  // Brings acc of row b up to date with the listed columns. `reverse`, `once`: see Kernels::columns_int8.
  void update(const Kernels& kernels, Operand& operand, int b, bool reverse, bool once, void* kernel_scratch);
  // Sets pre = bias + acc of row b; without a bias, pre += acc.
  static void put(const Kernels& kernels, const Operand& operand, int b, const float* bias, float* pre);
  // Both.
  void send(const Kernels& kernels, Operand& operand, int b, const float* bias, float* pre, bool reverse, bool once,
            void* kernel_scratch) {
    update(kernels, operand, b, reverse, once, kernel_scratch);
    put(kernels, operand, b, bias, pre);
  }

  // Adds W times a row z of the operand that exceeds what its integers reach, sent whole in a range of its own, to pre.
  // What counts as sent is z as the integers reach it, all of it.
  void send_beyond(const Kernels& kernels, Operand& operand, int b, const float* z, float* pre, bool reverse, bool once,
                   void* kernel_scratch);

 private:
  void recompute(const Kernels& kernels, const Matrix& w, DeltaState& delta, int b, void* kernel_scratch);
  bool needs_refresh(const Matrix& w, DeltaState& delta, int b) const;

  Buffer<int32_t> cols_;
  Buffer<float> delta_;        // float activations
  Buffer<int16_t> delta_int_;  // integer activations
  Buffer<float> gathered_;     // [C] the values that the columns of a pruned matrix read
  Buffer<int32_t> sums_;       // [R] of a row in a range of its own
  Buffer<float> scaled_;       // [R] the same in floats
  FloatProduct product_;
  int count_ = 0;
};

}  // namespace alstm
