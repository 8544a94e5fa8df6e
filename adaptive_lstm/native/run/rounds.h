// Rounds of pieces for several threads: a round's pieces are taken by whoever is there, and the next round starts when
// all of them are done. Threads come when they can: whoever finds a piece left by another takes it.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace alstm {

class Rounds {
 public:
  // One piece a round for each of so many threads.
  Rounds(int64_t rounds, int threads);

  struct Piece {
    int64_t round;
    int number;
  };
  // A piece for thread `who`, its own where it can be, as soon as the round before is over. False: none is left.
  bool next(int who, Piece& piece);
  void done() { done_.fetch_add(1, std::memory_order_acq_rel); }

 private:
  struct alignas(64) Seat {
    std::atomic<int64_t> taken{0};  // rounds in which somebody has taken this piece
    std::atomic<int> holder{-1};    // who did so last
  };
  bool take(int who, int number, int64_t round);

  const int64_t rounds_;
  const int threads_;
  std::vector<Seat> seats_;
  alignas(64) std::atomic<int64_t> done_{0};  // pieces
};

}  // namespace alstm
