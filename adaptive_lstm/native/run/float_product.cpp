#include "run/float_product.h"

#include <algorithm>
#include <cstring>

#include "run/rows.h"

namespace alstm {

void FloatProduct::grow(int rows, int cols) {
  alstm::grow(z_, size_t(cols));
  alstm::grow(y_, size_t(rows));
}

void FloatProduct::dense(const Kernels& kernels, const Matrix& w, const float* z, ptrdiff_t zs, int n,
                         const float* bias, float* y, ptrdiff_t ys, bool reverse) {
  bool huge = false;
  for (int j = 0; j < n && may_overflow(w); j++) huge |= kernels.largest(z + j * zs, w.cols) > kHuge;
  if (!huge) return kernels.dense(w, z, zs, n, bias, y, ys, reverse);
  for (int j = 0; j < n; j++) {
    if (bias) std::memcpy(y + j * ys, bias, w.rows * sizeof(float));
    add(kernels, w, z + j * zs, y + j * ys,
        [&](const float* one, float* out) { kernels.dense(w, one, w.cols, 1, nullptr, out, w.rows, reverse); });
  }
}

void FloatProduct::shrink(const float* z, const Matrix& w) {
  for (int c = 0; c < w.cols; c++) z_[c] = z[c] * 0x1p-32f;
  std::fill_n(y_.data(), w.rows, 0.0f);
}

}  // namespace alstm
