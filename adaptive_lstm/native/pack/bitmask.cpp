#include "pack/bitmask.h"

#include "cpu/dispatch.h"

namespace alstm {

namespace {

constexpr size_t kFar = size_t(1800) << 10;  // bytes: nearly a common second-level cache

template <class T>
void compress_as(Buffer<uint8_t>& data, size_t entries, std::vector<uint64_t>& mask, std::vector<int64_t>& start) {
  T* values = reinterpret_cast<T*>(data.data());
  const size_t masks = data.size() / sizeof(T) / kRowBlock;
  size_t kept = 0;
  mask.assign(masks, 0);
  start.clear();
  for (size_t m = 0; m < masks; m++) {
    if (m % entries == 0) start.push_back(int64_t(kept));
    for (size_t k = 0; k < kRowBlock; k++) {
      const T value = values[m * kRowBlock + k];
      if (is_zero(value)) continue;
      mask[m] |= uint64_t(1) << k;
      values[kept++] = value;
    }
  }
  data.resize((kept + kRowBlock) * sizeof(T));
  data.shrink_to_fit();
}

}  // namespace

void compress(Buffer<uint8_t>& data, Format format, size_t entries, std::vector<uint64_t>& mask,
              std::vector<int64_t>& start) {
  if (format == Format::f32) return compress_as<float>(data, entries, mask, start);
  if (format == Format::bf16) return compress_as<uint16_t>(data, entries, mask, start);
  if (format == Format::int8_weight_only) return compress_as<int8_t>(data, entries, mask, start);
  compress_as<uint8_t>(data, entries, mask, start);
}

bool compressing_pays(Format format, Layout layout, size_t elements, double zeros) {
  if (!active_kernels().expands(format)) return false;
  // Measured: so many elements come from far away with each step, and from such a share of zeros on reading less
  // outweighs putting them back. Bytes that are multiplied as floats are too slow for that at any size.
  if (format == Format::f32) return elements * sizeof(float) >= kFar && zeros >= 0.3;
  // On one of two processors listed columns in bfloat16 gained by it, on the other they lost.
  if (format == Format::bf16)
    return layout == Layout::interleaved && elements * sizeof(uint16_t) >= 2 * kFar && zeros >= 0.4;
  if (format == Format::int8_weight_only) return false;
  // Listed columns are interleaved besides, and whole ones of them are fast. At half the size steps would gain a
  // quarter, but whole sequences, between whose steps the matrix stays in the cache, lose a fifth.
  return elements >= kFar && zeros >= (layout == Layout::columns ? 0.6 : 0.3);
}

}  // namespace alstm
