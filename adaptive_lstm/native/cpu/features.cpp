#include "cpu/features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Register sets that the operating system saves on a context switch (XCR0); 0 if it says nothing. The instruction bits
// of cpuid alone are not enough: a kernel or hypervisor may leave the wide registers unsaved.
uint64_t saved_state() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

constexpr uint64_t kYmm = 0x6, kZmm = 0xE6, kTiles = 0x60000;

// Linux wants a process to ask before it uses tiles, which are 8 KB more to save for every thread (since 5.16).
constexpr unsigned kTileData = 18;  // the number of this component of the state
#if defined(__linux__) && defined(SYS_arch_prctl)
constexpr int kSupported = 0x1021, kAsk = 0x1023;  // ARCH_GET_XCOMP_SUPP, ARCH_REQ_XCOMP_PERM
bool tiles_to_be_had() {
  uint64_t components = 0;
  return syscall(SYS_arch_prctl, kSupported, &components) == 0 && (components >> kTileData & 1);
}
bool ask_for_tiles() { return syscall(SYS_arch_prctl, kAsk, kTileData) == 0; }
#else
bool tiles_to_be_had() { return false; }
bool ask_for_tiles() { return false; }
#endif

}  // namespace

namespace alstm {

bool cpu_has_avx2() {
  unsigned a, b, c, d;
  if ((saved_state() & kYmm) != kYmm) return false;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_FMA)) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

bool cpu_has_avx512vnni() {
  unsigned a, b, c, d;
  if (!cpu_has_avx2() || (saved_state() & kZmm) != kZmm) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const unsigned needed = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  return (b & needed) == needed && (c & bit_AVX512VNNI);
}

bool cpu_has_amx() {
  unsigned a, b, c, d;
  if (!cpu_has_avx512vnni() || (saved_state() & kTiles) != kTiles) return false;
  constexpr unsigned needed = 1u << 24 | 1u << 25;  // AMX-TILE, AMX-INT8
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & needed) == needed && tiles_to_be_had();
}

bool ask_for_amx() { return ask_for_tiles(); }

bool cpu_has_vbmi2() {
  static const bool has = [] {
    unsigned a, b, c, d;
    return cpu_has_avx512vnni() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_AVX512VBMI2);
  }();
  return has;
}

}  // namespace alstm

#else

namespace alstm {

bool cpu_has_avx2() { return false; }
bool cpu_has_avx512vnni() { return false; }
bool cpu_has_amx() { return false; }
bool ask_for_amx() { return false; }
bool cpu_has_vbmi2() { return false; }

}  // namespace alstm

#endif
