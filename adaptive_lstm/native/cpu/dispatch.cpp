#include "cpu/dispatch.h"

#include <cstdlib>
#include <stdexcept>

#include "cpu/features.h"

namespace alstm {

extern const Kernels* const kernels_generic;
#if defined(__x86_64__)
extern const Kernels* const kernels_avx2;
extern const Kernels* const kernels_avx512vnni;
#if defined(ALSTM_AMX)
extern const Kernels* const kernels_amx;
#endif
#endif

namespace {

struct Choice {
  const char* name;
  bool (*runs_here)();
  bool (*begin)();  // what has to be asked for before it is used
  const Kernels* table;
};

bool nothing() { return true; }

const std::vector<Choice>& choices() {  // best first
  static const std::vector<Choice> all = {
#if defined(__x86_64__)
#if defined(ALSTM_AMX)
      {"amx", cpu_has_amx, ask_for_amx, kernels_amx},
#endif
      {"avx512vnni", cpu_has_avx512vnni, nothing, kernels_avx512vnni},
      {"avx2", cpu_has_avx2, nothing, kernels_avx2},
#endif
      {"generic", nothing, nothing, kernels_generic},
  };
  return all;
}

const Kernels& choose() {
  const char* forced = std::getenv("ADAPTIVE_LSTM_ISA");
  std::string known;
  for (const Choice& choice : choices()) {
    if (!forced || !*forced) {
      if (choice.runs_here() && choice.begin()) return *choice.table;
      continue;
    }
    if (choice.name == std::string(forced)) {
      if (choice.runs_here() && choice.begin()) return *choice.table;
      throw std::runtime_error("ADAPTIVE_LSTM_ISA=" + std::string(forced) +
                               ": this processor or operating system does not support it; unset it");
    }
    known += known.empty() ? choice.name : std::string(", ") + choice.name;
  }
  throw std::runtime_error("ADAPTIVE_LSTM_ISA=" + std::string(forced ? forced : "") +
                           ": unknown instruction set; this build has " + known);
}

}  // namespace

const Kernels& active_kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

std::vector<std::string> usable_isas() {
  std::vector<std::string> out;
  for (const Choice& choice : choices())
    if (choice.runs_here()) out.emplace_back(choice.name);
  return out;
}

}  // namespace alstm
