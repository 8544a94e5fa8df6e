#include "cpu/dispatch.h"

#include <cstdlib>
#include <stdexcept>

#include "cpu/features.h"

namespace alstm {

extern const Kernels* const kernels_generic;
#if defined(__x86_64__)
extern const Kernels* const kernels_avx2;
extern const Kernels* const kernels_avx512vnni;
extern const Kernels* const kernels_avx512vbmi2;
#if defined(ALSTM_AMX)
extern const Kernels* const kernels_amx;
#endif
#elif defined(__aarch64__)
extern const Kernels* const kernels_neon;
extern const Kernels* const kernels_neondot;
extern const Kernels* const kernels_i8mm;
#endif

namespace {

struct Choice {
  const char* name;
  const Kernels* table;
  bool (*runs_here)();          // null: everywhere
  bool (*request)() = nullptr;  // permission to be requested before first use; null: none is needed
  bool usable() const { return !runs_here || runs_here(); }
  bool granted() const { return !request || request(); }
};

const std::vector<Choice>& choices() {  // best first
  static const std::vector<Choice> all = {
#if defined(__x86_64__)
#if defined(ALSTM_AMX)
    {"amx", kernels_amx, cpu_has_amx, request_amx_tiles},
#endif
    {"avx512vbmi2", kernels_avx512vbmi2, cpu_has_avx512vbmi2},
    {"avx512vnni", kernels_avx512vnni, cpu_has_avx512vnni},
    {"avx2", kernels_avx2, cpu_has_avx2},
#elif defined(__aarch64__)
    {"i8mm", kernels_i8mm, cpu_has_i8mm},
    {"neondot", kernels_neondot, cpu_has_neondot},
    {"neon", kernels_neon, nullptr},
#endif
    {"generic", kernels_generic, nullptr},
  };
  return all;
}

const Kernels& best() {
  for (const Choice& choice : choices())
    if (choice.usable() && choice.granted()) return *choice.table;
  return *kernels_generic;
}

const Kernels& named(const std::string& name) {
  std::string known;
  for (const Choice& choice : choices()) {
    if (choice.name == name) {
      if (choice.usable() && choice.granted()) return *choice.table;
      throw std::runtime_error("ADAPTIVE_LSTM_ISA=" + name +
                               ": this processor or operating system does not support it; unset it");
    }
    known += known.empty() ? choice.name : std::string(", ") + choice.name;
  }
  throw std::runtime_error("ADAPTIVE_LSTM_ISA=" + name + ": unknown instruction set; this build has " + known);
}

}  // namespace

const Kernels& active_kernels() {
  static const Kernels& chosen = [&]() -> const Kernels& {
    const char* forced = std::getenv("ADAPTIVE_LSTM_ISA");
    return forced && *forced ? named(forced) : best();
  }();
  return chosen;
}

std::vector<std::string> usable_isas() {
  std::vector<std::string> out;
  for (const Choice& choice : choices())
    if (choice.usable()) out.emplace_back(choice.name);
  return out;
}

}  // namespace alstm
