#include "cpu/features.h"

// Empty on processors that have no row in dispatch.cpp that asks.
#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Register sets that the operating system saves on a context switch (XCR0); 0 if unknown. The instruction bits of cpuid
// are not enough: a kernel or hypervisor may leave the wide registers unsaved.
uint64_t saved_state() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
}

constexpr uint64_t kYmm = 0x6, kZmm = 0xE6, kTiles = 0x60000;

// Since 5.16 Linux requires a process to request tiles, whose state adds 8 KB to every thread.
#if defined(__linux__) && defined(SYS_arch_prctl)
constexpr unsigned kTileData = 18;                     // number of this component of the state
constexpr int kSupported = 0x1021, kRequest = 0x1023;  // ARCH_GET_XCOMP_SUPP, ARCH_REQ_XCOMP_PERM
bool tiles_supported() {
  uint64_t components = 0;
  return syscall(SYS_arch_prctl, kSupported, &components) == 0 && (components >> kTileData & 1);
}
long request_tiles() { return syscall(SYS_arch_prctl, kRequest, kTileData); }
#else
bool tiles_supported() { return false; }
long request_tiles() { return -1; }
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

bool cpu_has_avx512vbmi2() {
  unsigned a, b, c, d;
  return cpu_has_avx512vnni() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_AVX512VBMI2);
}

bool cpu_has_amx() {
  unsigned a, b, c, d;
  if (!cpu_has_avx512vbmi2() || (saved_state() & kTiles) != kTiles) return false;
  constexpr unsigned needed = 1u << 24 | 1u << 25;  // AMX-TILE, AMX-INT8
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & needed) == needed && tiles_supported();
}

bool request_amx_tiles() { return request_tiles() == 0; }

}  // namespace alstm

#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>

namespace {

// The bits are the kernel's, by number: not every libc names them all.
bool has_dot() { return getauxval(AT_HWCAP) >> 20 & 1; }     // HWCAP_ASIMDDP
bool has_i8mm() { return getauxval(AT_HWCAP2) >> 13 & 1; }  // HWCAP2_I8MM

}  // namespace

#elif defined(__APPLE__)
#include <sys/sysctl.h>

namespace {

bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value;
}
bool has_dot() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }

}  // namespace

#else

namespace {

bool has_dot() { return false; }  // unknown
bool has_i8mm() { return false; }

}  // namespace

#endif

namespace alstm {

bool cpu_has_neondot() { return has_dot(); }
bool cpu_has_i8mm() { return has_dot() && has_i8mm(); }

}  // namespace alstm

#endif
