// The contract of contract.md in portable C++: four lanes as plain arrays.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd/no_tiles.h"
#include "simd/scalar_compact.h"
#include "simd/scalar_expand.h"
#include "simd/scalar_select.h"

namespace {

struct Vec {
  static constexpr int width = 4;
  static constexpr int dense_vecs = 2, dense_rows = 4;
  static constexpr int single_vecs = 4;
  float v[4];
  template <class F>
  static Vec make(F f) {
    Vec out;
    for (int i = 0; i < 4; i++) out.v[i] = f(i);
    return out;
  }
  static Vec load(const float* p) {
    return make([&](int i) { return p[i]; });
  }
  static Vec load(const uint16_t* p) {  // bfloat16 is the upper half of a float
    return make([&](int i) {
      const uint32_t bits = uint32_t(p[i]) << 16;
      float x;
      std::memcpy(&x, &bits, 4);
      return x;
    });
  }
  static Vec load(const int8_t* p) {
    return make([&](int i) { return float(p[i]); });
  }
  static Vec load(const int32_t* p) {
    return make([&](int i) { return float(p[i]); });
  }
  void store(float* p) const { std::memcpy(p, v, sizeof v); }
  static Vec set(float x) {
    return make([&](int) { return x; });
  }
  static Vec fma(Vec a, Vec b, Vec c) {
    return make([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  friend Vec operator+(Vec a, Vec b) {
    return make([&](int i) { return a.v[i] + b.v[i]; });
  }
  friend Vec operator-(Vec a, Vec b) {
    return make([&](int i) { return a.v[i] - b.v[i]; });
  }
  friend Vec operator*(Vec a, Vec b) {
    return make([&](int i) { return a.v[i] * b.v[i]; });
  }
  static Vec reciprocal(Vec x) {
    return make([&](int i) { return 1.0f / x.v[i]; });
  }
  static Vec clamp(Vec x, float low, float high) {  // a NaN fails both comparisons and stays
    return make([&](int i) { return x.v[i] < low ? low : x.v[i] > high ? high : x.v[i]; });
  }
  static constexpr bool has_powers = false;
  static Vec pow2(Vec n) {  // 2^n for whole n in [-126, 127]
    return make([&](int i) {
      const uint32_t bits = uint32_t((n.v[i] == n.v[i] ? int32_t(n.v[i]) : 0) + 127) << 23;
      float x;
      std::memcpy(&x, &bits, 4);
      return x;
    });
  }
};

struct Dot {
  static constexpr int quad = 4, weight_offset = 128;
  static constexpr bool has_dot8 = false;
  static constexpr int short_levels = 0;
  static constexpr int bytes = 16, lanes = 4;
  static constexpr int tile_blocks = 1;
  static constexpr int single_blocks = 1, wide_rows = 2, byte_rows = wide_rows;
  static constexpr int word_rows = 0, pairs = 0;
  static constexpr int row_position(int row) { return 16 * (row % 16 / 4) + 4 * (row / 16) + row % 4; }
  struct Quad {
    int16_t w[16];  // all 16 bytes, or after even() / odd() the first 8
  };
  struct Acc {
    int32_t v[4];
  };
  static Acc load_acc(const int32_t* p) {
    Acc a;
    std::memcpy(a.v, p, sizeof a.v);
    return a;
  }
  static void store_acc(int32_t* p, Acc a) { std::memcpy(p, a.v, sizeof a.v); }
  static Acc set(int32_t x) { return {{x, x, x, x}}; }
  static Acc add(Acc a, Acc b) {
    for (int i = 0; i < 4; i++) a.v[i] += b.v[i];
    return a;
  }
  static Acc sub(Acc a, Acc b) {
    for (int i = 0; i < 4; i++) a.v[i] -= b.v[i];
    return a;
  }
  static Vec to_float(Acc a) { return Vec::load(a.v); }
  static Quad load(const uint8_t* p) {
    Quad q;
    for (int i = 0; i < 16; i++) q.w[i] = p[i];
    return q;
  }
  static void interleave(const uint8_t* c0, const uint8_t* c1, const uint8_t* c2, const uint8_t* c3, Quad q[4]) {
    const uint8_t* c[4] = {c0, c1, c2, c3};
    for (int i = 0; i < 4; i++)
      for (int k = 0; k < 4; k++)
        for (int j = 0; j < 4; j++) q[i].w[4 * k + j] = c[j][4 * i + k];
  }
  static Quad even(Quad q) {
    for (int k = 0; k < 8; k++) q.w[k] = q.w[2 * k];
    return q;
  }
  static Quad odd(Quad q) {
    for (int k = 0; k < 8; k++) q.w[k] = q.w[2 * k + 1];
    return q;
  }
  static Quad column_words(const Quad (&q)[4], int i, int half) { return half ? odd(q[i]) : even(q[i]); }
  static Acc dot16(Acc a, Quad half, int32_t two) {
    int16_t d[2];
    std::memcpy(d, &two, 4);
    for (int k = 0; k < 4; k++) a.v[k] += half.w[2 * k] * d[0] + half.w[2 * k + 1] * d[1];
    return a;
  }
};

inline uint32_t greater_mask(const float* z, const float* sent, const float* threshold) {
  uint32_t mask = 0;
  for (int i = 0; i < 4; i++) mask |= uint32_t(std::fabs(z[i] - sent[i]) > (threshold ? threshold[i] : 0.0f)) << i;
  return mask;
}

inline void quantize_lanes(const float* z, int levels, const float* factor, int16_t* q) {
  for (int i = 0; i < 4; i++) {
    const float v = z[i] * (factor ? factor[i] : float(levels));
    q[i] = v != v ? int16_t(0)
                  : int16_t(std::nearbyintf(v > float(levels)    ? float(levels)
                                            : v < -float(levels) ? -float(levels)
                                                                 : v));
  }
}

inline uint32_t greater_mask_int8(const float* z, const int16_t* sent, const int16_t* q, const float* threshold,
                                  float step, const float* steps) {
  uint32_t mask = 0;
  for (int i = 0; i < 4; i++) {
    const float was = float(sent[i]) * (steps ? steps[i] : step);
    const bool fires = q[i] != sent[i] && (!threshold || std::fabs(z[i] - was) > threshold[i]);
    mask |= uint32_t(fires) << i;
  }
  return mask;
}

using Expand = ScalarExpand;

}  // namespace
