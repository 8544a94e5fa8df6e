// Everything that is not a matrix product. Part of kernels.cpp: compiled once per instruction set.
#pragma once
#include "kernels.h"

namespace {

using namespace alstm;

void finish(const float* acc, const float* bias, float* pre, int rows) {
  for (int r = 0; r < rows; r += Vec::width) (Vec::load((bias ? bias : pre) + r) + Vec::load(acc + r)).store(pre + r);
}

void finish_q8(const int32_t* acc, const float* scale, const float* bias, float* pre, int rows) {
  for (int r = 0; r < rows; r += Vec::width)
    Vec::fma(Vec::load(scale + r), Vec::load(acc + r), Vec::load((bias ? bias : pre) + r)).store(pre + r);
}

// e^x to about 2e-7 relative for |x| <= 87: x = n ln 2 + r, a polynomial in r (Cephes expf), times 2^n.
inline Vec exp_of(Vec x) {
  const Vec magic = Vec::set(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vec n = Vec::fma(x, Vec::set(1.44269504088896341f), magic) - magic;
  Vec r = Vec::fma(n, Vec::set(-0.693359375f), x);
  r = Vec::fma(n, Vec::set(2.12194440e-4f), r);
  Vec p = Vec::set(1.9875691500e-4f);
  p = Vec::fma(p, r, Vec::set(1.3981999507e-3f));
  p = Vec::fma(p, r, Vec::set(8.3334519073e-3f));
  p = Vec::fma(p, r, Vec::set(4.1665795894e-2f));
  p = Vec::fma(p, r, Vec::set(1.6666665459e-1f));
  p = Vec::fma(p, r, Vec::set(5.0000001201e-1f));
  p = Vec::fma(p, r * r, r + Vec::set(1.0f));
  return Vec::times_pow2(p, n);
}

// e^-ax, clamped so that a product of two stays finite; beyond the clamp sigmoid and tanh are 0 or 1 in float anyway.
// V is always Vec: as a parameter it lets an instruction set leave out what it does not have.
template <class V = Vec>
inline V exp_minus(V x, float a) {
  if constexpr (V::has_powers) {  // -ax = (n + r) ln 2 / 16: a table for n, a short polynomial for |r| <= 1/2
    const V at = V::clamp(x, -43.0f / a, 43.0f / a), steps = V::set(-a * 23.0831206542f);
    const V magic = V::set(12582912.0f), biased = V::fma(at, steps, magic), r = V::fma(at, steps, magic - biased);
    V p = V::fma(V::set(1.35508924e-5f), r, V::set(9.38384798e-4f));
    p = V::fma(p, r, V::set(4.33216988e-2f));
    return V::fma(p, r, V::set(1.0f)) * V::power(biased);
  } else {
    return exp_of(V::clamp(x * V::set(-a), -43.0f, 43.0f));
  }
}

// Two passes, first c and then h: the chain from a pre-activation to h is long, and short loop bodies let the processor
// overlap more of them.
void cell(const float* pre, float* c, float* h, int blocks) {
  const Vec one = Vec::set(1.0f);
  for (int b = 0; b < blocks; b++)
    for (int k = 0; k < kUnits; k += Vec::width) {
      const float* gate = pre + b * kBlock + k;
      float* state = c + b * kUnits + k;
      const Vec ei = exp_minus(Vec::load(gate), 1.0f), ef = exp_minus(Vec::load(gate + kUnits), 1.0f);
      const Vec eg = exp_minus(Vec::load(gate + 2 * kUnits), 2.0f);
      // c' = sigmoid(f) c + sigmoid(i) tanh(g), the last two sharing a reciprocal
      const Vec kept = Vec::load(state) * Vec::reciprocal(one + ef);
      Vec::fma(one - eg, Vec::reciprocal((one + ei) * (one + eg)), kept).store(state);
    }
  for (int b = 0; b < blocks; b++)
    for (int k = 0; k < kUnits; k += Vec::width) {
      const Vec eo = exp_minus(Vec::load(pre + b * kBlock + 3 * kUnits + k), 1.0f);
      const Vec ec = exp_minus(Vec::load(c + b * kUnits + k), 2.0f);
      // h' = sigmoid(o) tanh(c')
      ((one - ec) * Vec::reciprocal((one + eo) * (one + ec))).store(h + b * kUnits + k);
    }
}

// factor(k): where the factors of columns k, k + 1, ... lie; null: levels for all.
template <class Factor>
inline void quantize_by(int levels, Factor factor, const float* z, int n, int16_t* q) {
  int k = 0;
  for (; k + Vec::width <= n; k += Vec::width) quantize_lanes(z + k, levels, factor(k), q + k);
  if (k == n) return;
  float tail[Vec::width] = {};
  int16_t out[Vec::width];
  for (int i = k; i < n; i++) tail[i - k] = z[i];
  quantize_lanes(tail, levels, factor(k), out);
  for (int i = k; i < n; i++) q[i] = out[i - k];
}

// The largest |z|; several so that the comparisons overlap.
inline float largest_of(const float* z, int n) {
  float most[16] = {};
  int k = 0;
  for (; k + 16 <= n; k += 16)
    for (int i = 0; i < 16; i++) {
      const float size = __builtin_fabsf(z[k + i]);
      most[i] = size > most[i] ? size : most[i];
    }
  for (; k < n; k++) {
    const float size = __builtin_fabsf(z[k]);
    most[0] = size > most[0] ? size : most[0];
  }
  for (float m : most) most[0] = m > most[0] ? m : most[0];
  return most[0];
}

float quantize(const Matrix& w, const float* z, int n, int16_t* q) {
  const int levels = w.levels;  // copies: as far as the compiler knows, stores to q might change w
  if (w.dynamic) {
    const float largest = largest_of(z, n);
    float same[Vec::width];
    for (float& f : same) f = largest < kFaint ? 0.0f : float(levels) / largest;
    quantize_by(levels, [&](int) { return same; }, z, n, q);
    return largest;
  }
  const float* const factor = w.factor;
  quantize_by(levels, [&](int k) { return factor ? factor + k : nullptr; }, z, n, q);
  return 1.0f;
}

int changed(const float* z, float* sent, const float* threshold, int n, int32_t* cols, float* delta) {
  int count = 0, k = 0;
  for (; k + Vec::width <= n; k += Vec::width) {
    const uint32_t mask = greater_mask(z + k, sent + k, threshold ? threshold + k : nullptr);
    count += emit(mask, k, z + k, sent + k, cols + count, delta + count);
  }
  for (; k < n; k++) {
    const float moved = z[k] - sent[k];
    if (!((moved < 0 ? -moved : moved) > (threshold ? threshold[k] : 0.0f))) continue;
    cols[count] = k;
    delta[count++] = moved;
    sent[k] = z[k];
  }
  return count;
}

int changed_q8(const Matrix& w, const float* z, int16_t* sent, const float* threshold, int n, int32_t* cols,
               int16_t* delta) {
  const int levels = w.levels;  // copies, as above
  const float *const factor = w.factor, *const steps = w.step, step = 1.0f / float(levels);
  int count = 0;
  for (int k = 0; k < n; k += Vec::width) {
    const int lanes = n - k < Vec::width ? n - k : Vec::width;
    float now[Vec::width] = {}, limit[Vec::width] = {};
    int16_t q[Vec::width], old[Vec::width] = {};
    const float *at = z + k, *bound = threshold ? threshold + k : nullptr;
    const int16_t* before = sent + k;
    if (lanes < Vec::width) {  // the tail goes through padded copies
      for (int i = 0; i < lanes; i++) now[i] = at[i], old[i] = before[i], limit[i] = bound ? bound[i] : 0.0f;
      at = now, before = old, bound = bound ? limit : nullptr;
    }
    quantize_lanes(at, levels, factor ? factor + k : nullptr, q);
    const uint32_t mask = greater_mask_q8(at, before, q, bound, step, steps ? steps + k : nullptr);
    count += emit_q8(mask, k, q, sent + k, cols + count, delta + count);
  }
  return count;
}

bool finite(const float* z, size_t n) {
  // 0 * x is NaN for an infinite or NaN x and 0 otherwise; several sums so that the additions overlap.
  float sum[16] = {};
  size_t k = 0;
  for (; k + 16 <= n; k += 16)
    for (int i = 0; i < 16; i++) sum[i] += z[k + i] * 0.0f;
  for (; k < n; k++) sum[0] += z[k] * 0.0f;
  float all = 0.0f;
  for (float s : sum) all += s;
  return all == 0.0f;
}

// Eight doubles as the compiler knows them: one register, or several smaller ones.
typedef float Floats8 __attribute__((vector_size(32)));
typedef double Doubles8 __attribute__((vector_size(64)));

double mean_square(const float* x, const float* y, int n) {
  Doubles8 sum = {};
  double all = 0;
  for (int k = 0; k < n; k += 8) {
    Floats8 a = {}, b = {};
    const size_t bytes = (n - k < 8 ? n - k : 8) * sizeof(float);
    if (bytes == sizeof a) {
      __builtin_memcpy(&a, x + k, sizeof a);
      if (y) __builtin_memcpy(&b, y + k, sizeof b);
    } else {
      __builtin_memcpy(&a, x + k, bytes);
      if (y) __builtin_memcpy(&b, y + k, bytes);
    }
    const Doubles8 d = __builtin_convertvector(a, Doubles8) - __builtin_convertvector(b, Doubles8);
    sum += d * d;
  }
  for (int i = 0; i < 8; i++) all += sum[i];
  return all / n;
}

}  // namespace
