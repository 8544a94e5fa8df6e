// Lists of columns for AVX2, eight lanes at once: a table says which lanes a mask has.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace {

struct LaneTable {
  uint8_t of[256][8] = {};  // the lanes of a mask, ascending, and zeros
  constexpr LaneTable() {
    for (int mask = 0; mask < 256; mask++)
      for (int i = 0, n = 0; i < 8; i++)
        if (mask >> i & 1) of[mask][n++] = uint8_t(i);
  }
};
constexpr LaneTable kLanes;

inline __m128i lanes_of(uint32_t mask) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLanes.of[mask])); }

// As in simd/scalar_compact.h; write 8 entries whatever the mask, and read and write 8 of `sent`.
inline int compact(uint32_t mask, int first, const float* z, float* sent, int32_t* cols, float* delta) {
  const __m256i lanes = _mm256_cvtepu8_epi32(lanes_of(mask)), bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i listed = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(mask)), bits), bits);
  const __m256 now = _mm256_loadu_ps(z), old = _mm256_loadu_ps(sent);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(cols), _mm256_add_epi32(lanes, _mm256_set1_epi32(first)));
  _mm256_storeu_ps(delta, _mm256_permutevar8x32_ps(_mm256_sub_ps(now, old), lanes));
  _mm256_storeu_ps(sent, _mm256_blendv_ps(old, now, _mm256_castsi256_ps(listed)));
  return __builtin_popcount(mask);
}

inline int compact_int8(uint32_t mask, int first, const int16_t* q, int16_t* sent, int32_t* cols, int16_t* delta) {
  const __m128i lanes = lanes_of(mask), bits = _mm_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128);
  const __m128i listed = _mm_cmpeq_epi16(_mm_and_si128(_mm_set1_epi16(int16_t(mask)), bits), bits);
  const __m128i bytes = _mm_add_epi16(_mm_mullo_epi16(_mm_cvtepu8_epi16(lanes), _mm_set1_epi16(0x0202)),
                                      _mm_set1_epi16(0x0100));  // of the word of a lane
  const __m128i now = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
  const __m128i old = _mm_loadu_si128(reinterpret_cast<const __m128i*>(sent));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(cols),
                      _mm256_add_epi32(_mm256_cvtepu8_epi32(lanes), _mm256_set1_epi32(first)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(delta), _mm_shuffle_epi8(_mm_sub_epi16(now, old), bytes));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sent), _mm_blendv_epi8(old, now, listed));
  return __builtin_popcount(mask);
}

}  // namespace
