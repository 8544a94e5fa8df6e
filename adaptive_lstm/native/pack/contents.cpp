#include "pack/contents.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace alstm {

namespace {

constexpr size_t kWords = kDigestBytes / 8;
constexpr size_t kQuarters = 4;        // of a region: the gates of a gate matrix and of a bias
constexpr size_t kSearched = 1 << 14;  // words of a quarter among which some are chosen
constexpr size_t kFewest = 256;        // blocks that fewer count as, so that a small model is compared more often

// Odd numbers without a pattern (splitmix64), so that no word of weights is likely to be one of them.
constexpr std::array<uint64_t, kWords> make_keys() {
  std::array<uint64_t, kWords> keys{};
  uint64_t state = 0;
  for (size_t i = 0; i < kWords; i++) {
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    keys[i] = (z ^ (z >> 31)) | 1;
  }
  return keys;
}
constexpr std::array<uint64_t, kWords> kKeys = make_keys();

template <class T>
T read(const unsigned char* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Both halves of a product of 64 bits by 64, combined: all bits of both factors reach the result.
uint64_t mix(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide(a) * b;
  return uint64_t(product) ^ uint64_t(product >> 64);
#else
  const uint64_t low = uint64_t(uint32_t(a)) * uint32_t(b), high = (a >> 32) * (b >> 32);
  const uint64_t across = (a >> 32) * uint32_t(b), other = uint64_t(uint32_t(a)) * (b >> 32);
  const uint64_t middle = (low >> 32) + uint32_t(across) + uint32_t(other);
  return ((middle << 32) | uint32_t(low)) ^ (high + (across >> 32) + (other >> 32) + (middle >> 32));
#endif
}

}  // namespace

// A sum of independent products of two keyed words each (the multilinear hash of Lemire and Kaser, arXiv 1202.4961):
// no product waits for another. Only a word that equals its key would hide its partner.
uint64_t digest(const unsigned char* data, size_t bytes) {
  uint64_t even = bytes, odd = 0;
  size_t i = 0;
  for (; (i + 4) * 8 <= bytes; i += 4) {
    const uint64_t a = read<uint64_t>(data + i * 8), b = read<uint64_t>(data + i * 8 + 8);
    const uint64_t c = read<uint64_t>(data + i * 8 + 16), d = read<uint64_t>(data + i * 8 + 24);
    even += mix(a ^ kKeys[i], b ^ kKeys[i + 1]);
    odd += mix(c ^ kKeys[i + 2], d ^ kKeys[i + 3]);
  }
  for (; i * 8 < bytes; i++) {
    uint64_t word = 0;
    std::memcpy(&word, data + i * 8, std::min<size_t>(8, bytes - i * 8));
    even += mix(word ^ kKeys[i], kKeys[kWords - 1 - i]);
  }
  return mix(even ^ kKeys[0], kKeys[1]) + odd;
}

uint64_t Contents::epoch_ = 1;

Contents::Contents(std::vector<Region> regions, bool always) : regions_(std::move(regions)), always_(always) {
  auto known = std::make_shared<Known>();
  for (size_t r = 0; r < regions_.size(); r++) {
    const Region& region = regions_[r];
    auto& digests = known->digests.emplace_back();
    for (size_t at = 0; at < region.bytes; at += kDigestBytes)
      digests.push_back(digest(region.data + at, std::min(kDigestBytes, region.bytes - at)));
    known->blocks += digests.size();
    add_words(*known, uint32_t(r));
  }
  known_ = std::move(known);
}

// Of every quarter the words of largest and of smallest magnitude but zero: most dense writes change one of them, such
// as scaling, clipping and pruning by magnitude. Words are read as float32; of other types any words will do.
void Contents::add_words(Known& known, uint32_t region) const {
  const auto [data, bytes] = regions_[region];
  const size_t words = bytes / 4;
  for (size_t quarter = 0; quarter < kQuarters; quarter++) {
    const size_t begin = words * quarter / kQuarters,
                 end = std::min(words * (quarter + 1) / kQuarters, begin + kSearched);
    if (begin == end) continue;
    size_t largest = begin, smallest = begin;
    uint32_t most = 0, least = 0xffffffff;
    for (size_t i = begin; i < end; i++) {
      const uint32_t magnitude = read<uint32_t>(data + i * 4) << 1;  // without the sign
      if (magnitude > most) most = magnitude, largest = i;
      if (magnitude - 1 < least) least = magnitude - 1, smallest = i;  // zero becomes the largest
    }
    for (size_t i : {largest, smallest}) known.words.push_back({region, read<uint32_t>(data + i * 4), i * 4});
  }
}

bool Contents::words_hold() const {
  uint32_t differ = 0;
  for (const Word& word : known_->words) differ |= read<uint32_t>(regions_[word.region].data + word.at) ^ word.value;
  return !differ;
}

bool Contents::block_holds(size_t region, size_t block) const {
  const size_t at = block * kDigestBytes, bytes = std::min(kDigestBytes, regions_[region].bytes - at);
  return digest(regions_[region].data + at, bytes) == known_->digests[region][block];
}

bool Contents::region_holds(size_t region) const {
  for (size_t b = 0; b < known_->digests[region].size(); b++)
    if (!block_holds(region, b)) return false;
  return true;
}

bool Contents::whole() const {
  if (!words_hold()) return false;
  for (size_t r = 0; r < regions_.size(); r++)
    if (!region_holds(r)) return false;
  return true;
}

bool Contents::look(int64_t timesteps) {
  const bool same = always_ || seen_ != epoch_ ? whole() : words_hold() && next_blocks_hold(timesteps);
  seen_ = same ? epoch_ : 0;
  looks_ += same;
  return same;
}

void Contents::prefetch() const {
  for (const Word& word : known_->words) __builtin_prefetch(regions_[word.region].data + word.at);
  if (regions_.empty()) return;
  const Region& region = regions_[region_];
  const size_t at = block_ * kDigestBytes, end = std::min(at + kDigestBytes, region.bytes);
  for (size_t i = at; i < end; i += 64) __builtin_prefetch(region.data + i);
}

bool Contents::next_blocks_hold(int64_t timesteps) {
  const size_t blocks = std::max(known_->blocks, kFewest);
  owed_ += blocks * size_t(std::min(std::max<int64_t>(timesteps, 1), kTurn));
  for (; owed_ >= size_t(kTurn) && known_->blocks; owed_ -= kTurn) {
    while (block_ >= known_->digests[region_].size()) block_ = 0, region_ = (region_ + 1) % regions_.size();
    if (!block_holds(region_, block_++)) return false;
  }
  return true;
}

std::unique_ptr<Contents> Contents::moved(const std::vector<Region>& regions, const std::vector<bool>& counted) const {
  if (regions.size() != regions_.size() || counted.size() != regions.size()) return nullptr;
  for (size_t r = 0; r < regions.size(); r++)
    if (regions[r].bytes != regions_[r].bytes) return nullptr;
  auto out = std::make_unique<Contents>(*this);
  out->regions_ = regions;
  if (!out->words_hold()) return nullptr;
  const bool doubted = always_ || seen_ != epoch_;
  for (size_t r = 0; r < regions.size(); r++)
    if ((doubted || !counted[r]) && !out->region_holds(r)) return nullptr;
  out->seen_ = epoch_;
  out->looks_++;
  return out;
}

}  // namespace alstm
