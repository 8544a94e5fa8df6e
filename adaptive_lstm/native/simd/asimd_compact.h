// Lists of columns for NEON, four lanes at once: a table says which lanes a mask has.
#pragma once
#include <arm_neon.h>

#include <cstdint>

namespace {

// The bytes of the lanes of a mask, ascending, and zeros; of lanes of four bytes and of two.
struct LaneTable {
  uint8_t four[16][16] = {}, two[16][8] = {};
  uint8_t count[16] = {};
  uint32_t bits[4] = {1, 2, 4, 8};
  int32_t lanes[4] = {0, 1, 2, 3};
  constexpr LaneTable() {
    for (int mask = 0; mask < 16; mask++)
      for (int i = 0, n = 0; i < 4; i++) {
        if (!(mask >> i & 1)) continue;
        for (int b = 0; b < 4; b++) four[mask][4 * n + b] = uint8_t(4 * i + b);
        for (int b = 0; b < 2; b++) two[mask][2 * n + b] = uint8_t(2 * i + b);
        count[mask] = uint8_t(++n);
      }
  }
};
constexpr LaneTable kLanes;

inline uint32x4_t listed_lanes(uint32_t mask) { return vtstq_u32(vdupq_n_u32(mask), vld1q_u32(kLanes.bits)); }

inline void list_columns(uint8x16_t lanes, int first, int32_t* cols) {
  const int32x4_t all = vaddq_s32(vld1q_s32(kLanes.lanes), vdupq_n_s32(first));
  vst1q_s32(cols, vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(all), lanes)));
}

// As in simd/scalar_compact.h; write 4 entries whatever the mask, and read and write 4 of `sent`.
inline int compact(uint32_t mask, int first, const float* z, float* sent, int32_t* cols, float* delta) {
  const uint8x16_t lanes = vld1q_u8(kLanes.four[mask]);
  const float32x4_t now = vld1q_f32(z), was = vld1q_f32(sent);
  list_columns(lanes, first, cols);
  vst1q_f32(delta, vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(vsubq_f32(now, was)), lanes)));
  vst1q_f32(sent, vbslq_f32(listed_lanes(mask), now, was));
  return kLanes.count[mask];
}

inline int compact_int8(uint32_t mask, int first, const int16_t* q, int16_t* sent, int32_t* cols, int16_t* delta) {
  const int16x4_t now = vld1_s16(q), was = vld1_s16(sent);
  const uint8x8_t difference = vreinterpret_u8_s16(vsub_s16(now, was));
  list_columns(vld1q_u8(kLanes.four[mask]), first, cols);
  vst1_s16(delta, vreinterpret_s16_u8(vtbl1_u8(difference, vld1_u8(kLanes.two[mask]))));
  vst1_s16(sent, vbsl_s16(vmovn_u32(listed_lanes(mask)), now, was));
  return kLanes.count[mask];
}

}  // namespace
