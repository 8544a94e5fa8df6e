#include "pack/bitmask.h"

#include "cpu/dispatch.h"
#include "kernels/tuning.h"

namespace alstm {

namespace {

template <class T, class IsZero>
void keep_if_not(IsZero zero, Buffer<uint8_t>& data, size_t entries, std::vector<uint64_t>& mask,
                 std::vector<int64_t>& start) {
  T* values = reinterpret_cast<T*>(data.data());
  const size_t masks = data.size() / sizeof(T) / kRowBlock;
  size_t kept = 0;
  mask.assign(masks, 0);
  start.clear();
  for (size_t m = 0; m < masks; m++) {
    if (m % entries == 0) start.push_back(int64_t(kept));
    for (size_t k = 0; k < kRowBlock; k++) {
      const T value = values[m * kRowBlock + k];
      if (zero(value)) continue;
      mask[m] |= uint64_t(1) << k;
      values[kept++] = value;
    }
  }
  data.resize((kept + kRowBlock) * sizeof(T));
  data.shrink_to_fit();
}

template <class T>
void keep_nonzero_as(Buffer<uint8_t>& data, size_t entries, std::vector<uint64_t>& mask, std::vector<int64_t>& start) {
  keep_if_not<T>([](T v) { return is_zero(v); }, data, entries, mask, start);
}

}  // namespace

void keep_nonzero(Buffer<uint8_t>& data, Format format, size_t entries, std::vector<uint64_t>& mask,
                  std::vector<int64_t>& start) {
  if (format == Format::f32) return keep_nonzero_as<float>(data, entries, mask, start);
  if (format == Format::bf16) return keep_nonzero_as<uint16_t>(data, entries, mask, start);
  if (format == Format::int8_weight_only) return keep_nonzero_as<int8_t>(data, entries, mask, start);
  const uint8_t zero = stored_zero<uint8_t>(active_kernels().int8.weight_offset);
  keep_if_not<uint8_t>([zero](uint8_t v) { return v == zero; }, data, entries, mask, start);
}

bool bitmask_pays(Format format, Layout layout, size_t elements, double zeros) {
  const Kernels& k = active_kernels();
  switch (format) {
    case Format::f32:
      return k.expands_floats && elements * sizeof(float) >= kBeyondCache && zeros >= kZerosFloat;
    case Format::bf16:  // single columns gained on one of two processors and lost on the other
      return k.expands_narrow && layout == Layout::interleaved && elements * sizeof(uint16_t) >= 2 * kBeyondCache &&
             zeros >= kZerosBf16;
    case Format::int8_weight_only:  // conversion to float is too slow for any gain
      return false;
    case Format::int8:
      return k.expands_narrow && elements >= kBeyondCache &&
             zeros >= (layout == Layout::columns ? kZerosInt8Columns : kZerosInt8);
  }
  return false;
}

}  // namespace alstm
