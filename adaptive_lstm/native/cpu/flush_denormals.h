// Denormal numbers as zeros.
#pragma once

#include <cstdint>
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

namespace alstm {

// While one exists, this thread takes and gives zeros for numbers below 2^-126, on which processors spend a hundred
// cycles each. Then its mode is what it was.
class FlushDenormals {
 public:
  FlushDenormals() : before_(mode()) {
    if ((before_ & kFlush) != kFlush) set(before_ | kFlush);
  }
  ~FlushDenormals() {
    if ((before_ & kFlush) != kFlush) set(before_);
  }
  FlushDenormals(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__) || defined(__i386__)
  using Mode = unsigned;
  static constexpr Mode kFlush = 0x8040;  // of results (FTZ) and of operands (DAZ)
  static Mode mode() { return _mm_getcsr(); }
  static void set(Mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
  using Mode = uint64_t;
  static constexpr Mode kFlush = uint64_t(1) << 24;  // FZ, of both
  static Mode mode() {
    Mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(Mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
  using Mode = unsigned;
  static constexpr Mode kFlush = 0;
  static Mode mode() { return 0; }
  static void set(Mode) {}
#endif
  const Mode before_;
};

}  // namespace alstm
