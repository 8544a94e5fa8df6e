// Whether memory still holds what it held: what is known of weights that nobody counts the writes to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace alstm {

// Bytes at an address that outlive every call that is given them.
struct Region {
  const unsigned char* data;
  size_t bytes;
};

// A 64-bit digest of up to kDigestBytes bytes. Every bit matters, and so does where it stands.
constexpr size_t kDigestBytes = 1024;
uint64_t digest(const unsigned char* data, size_t bytes);

// What some regions held when this was made: a digest of every block, and words that a dense write changes.
class Contents {
 public:
  // always: every look compares everything.
  Contents(std::vector<Region> regions, bool always);

  // False if a difference is found. Compares the words everywhere, and the next blocks in turn: all of them within
  // kTurn timesteps (batch rows times timesteps). Everything is compared where `always`, and once
  // after doubt() or a difference.
  bool look(int64_t timesteps);
  static constexpr int64_t kTurn = 4096;

  // Fetches what the next look is going to read.
  void prefetch() const;

  // How often look() found no difference.
  int64_t looks() const { return looks_; }

  // Whether everything is as it was.
  bool whole() const;

  // The same for regions of the same sizes elsewhere; null if they hold something else. counted[r]: nothing was written
  // to region r, as far as is counted.
  std::unique_ptr<Contents> moved(const std::vector<Region>& regions, const std::vector<bool>& counted) const;

  // The next look at these, or at any contents, compares everything.
  void doubt() { seen_ = 0; }
  static void doubt_all() { epoch_++; }

 private:
  struct Word {
    uint32_t region;
    uint32_t value;
    size_t at;  // offset in bytes
  };
  struct Known {  // shared by contents that moved
    std::vector<Word> words;
    std::vector<std::vector<uint64_t>> digests;  // of every region, one per block
    size_t blocks = 0;
  };
  bool words_hold() const;
  bool next_blocks_hold(int64_t timesteps);
  bool block_holds(size_t region, size_t block) const;
  bool region_holds(size_t region) const;
  void add_words(Known& known, uint32_t region) const;

  static uint64_t epoch_;
  std::vector<Region> regions_;
  std::shared_ptr<const Known> known_;
  uint64_t seen_ = epoch_;
  int64_t looks_ = 0;
  size_t owed_ = 0;                // of a block, in parts of kTurn
  size_t region_ = 0, block_ = 0;  // the next block to compare
  bool always_;
};

}  // namespace alstm
