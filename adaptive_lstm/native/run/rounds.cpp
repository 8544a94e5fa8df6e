#include "run/rounds.h"

#include <thread>

#include "run/thread_pool.h"

namespace alstm {

Rounds::Rounds(int64_t rounds, int threads) : rounds_(rounds), threads_(threads), seats_(size_t(threads)) {}

bool Rounds::next(int who, Piece& piece) {
  for (;;) {
    const int64_t round = done_.load(std::memory_order_acquire) / threads_;
    if (round >= rounds_) return false;
    piece.round = round;
    // A piece that this thread had to take before is not waited for: its owner has not come yet.
    for (int i = 0; i < threads_; i++) {
      piece.number = (who + i) % threads_;
      const bool own = !i || seats_[piece.number].holder.load(std::memory_order_relaxed) == who;
      if (own && take(who, piece.number, round)) return true;
    }
    const auto over = [&] { return done_.load(std::memory_order_acquire) / threads_ > round; };
    if (spin(over)) continue;
    for (piece.number = 0; piece.number < threads_; piece.number++)
      if (take(who, piece.number, round)) return true;
    std::this_thread::yield();
  }
}

bool Rounds::take(int who, int number, int64_t round) {
  Seat& seat = seats_[size_t(number)];
  int64_t before = round;
  if (!seat.taken.compare_exchange_strong(before, round + 1, std::memory_order_acq_rel)) return false;
  seat.holder.store(who, std::memory_order_relaxed);
  return true;
}

}  // namespace alstm
