// The Python bindings of the native core: they check arguments and forward them. Weights come in once as numpy arrays;
// a run passes addresses, which Python has checked (a tensor argument would cost more than a small step).
#include "bind/bind.h"
#include "cpu/dispatch.h"
#include "pack/plan.h"
#include "run/policy.h"
#include "run/rows.h"
#include "run/thread_race.h"
#include "run/turn.h"

using namespace alstm;

namespace {

// Numbers that Python has too; tests/execution/test_constants.py compares them.
void bind_constants(nb::module_& m) {
  nb::module_ constants = m.def_submodule("constants");
  constants.attr("GATE_STRIP") = kGateStrip;
  constants.attr("ROW_BLOCK") = kRowBlock;
  constants.attr("CHUNK_ROWS") = kChunkRows;
  constants.attr("LONGEST") = kLongest;
  constants.attr("MOST_KEPT") = kMostKept;
  constants.attr("RACE_ROUNDS") = ThreadRace::kRounds;
  constants.attr("MAX_LEVELS") = kMaxLevels;
  constants.attr("MIN_CHANGE") = kMinChange;
  constants.attr("MIN_DYNAMIC_RANGE") = double(kMinDynamicRange);
}

// Busy is an error of the package. Runs with the GIL held.
void translate_busy(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Busy& busy) {
    PyErr_SetString(nb::module_::import_("adaptive_lstm.errors").attr("BusyError").ptr(), busy.what());
  }
}

}  // namespace

NB_MODULE(_native, m) {
#ifdef NDEBUG
  // A daemon thread that runs at exit holds its objects for ever; that is no leak of ours, and users cannot act on it.
  nb::set_leak_warnings(false);
#endif
  m.attr("compiler") = ALSTM_COMPILER;
  m.def(
      "isa", [] { return std::string(active_kernels().isa); }, "The instruction set in use.");
  m.def("usable_isas", &usable_isas, "The instruction sets that run on this machine, best first.");
  nb::register_exception_translator(translate_busy);
  bind_constants(m);
  bind_weights(m);
  bind_policy(m);
  bind_state(m);
  bind_contents(m);
  bind_counters(m);
  bind_direct_call(m);
}
