// Matrix products with float activations that may be huge.
#pragma once

#include "pack/plan.h"

namespace alstm {

// The sums of weight-only int8 are of integers times activations, and are scaled afterwards: they could overflow where
// the products with the weights do not. Activations beyond this are multiplied as 2^-32 of themselves.
constexpr float kHuge = 0x1p96f;
inline bool may_overflow(const Matrix& w) { return w.format == Format::int8_weight_only; }

class FloatProduct {
 public:
  void grow(int rows, int cols);
  // As Kernels::dense.
  void dense(const Kernels& kernels, const Matrix& w, const float* z, ptrdiff_t zs, int n, const float* bias, float* y,
             ptrdiff_t ys, bool reverse);
  // y += product of z [C], where product(z, y) adds that.
  template <class Product>
  void add(const Kernels& kernels, const Matrix& w, const float* z, float* y, Product product) {
    if (!may_overflow(w) || !(kernels.largest(z, w.cols) > kHuge)) return product(z, y);
    shrink(z, w);
    product(z_.data(), y_.data());
    for (int r = 0; r < w.rows; r++) y[r] += y_[r] * 0x1p32f;
  }

 private:
  void shrink(const float* z, const Matrix& w);  // into z_, and zeros into y_

  Buffer<float> z_, y_;  // [C], [R]
};

}  // namespace alstm
