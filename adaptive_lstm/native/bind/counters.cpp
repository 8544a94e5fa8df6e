#include "bind/counters.h"

#include "bind/turns.h"

namespace alstm {

Counters counters(const StackState& state) {
  const Reading guard(state);
  Counters out;
  for (const auto& layer : state.batch().layers())
    for (const CellState& cell : layer)
      std::get<0>(out).emplace_back(cell.x.sent, cell.recurrent.sent, cell.ran, cell.advanced);
  ExitCounts exits = state.exit_counts();
  std::get<1>(out) = {exits.checks, exits.exits, std::move(exits.depth_checks), std::move(exits.depth_exits)};
  std::get<2>(out) = state.timesteps();
  return out;
}

Rates rates(const StackState& state, int64_t columns, int64_t timesteps, int rows) {
  const Reading guard(state);
  int64_t sent = 0, ran = 0, cells = 0;
  for (const auto& layer : state.batch().layers())
    for (const CellState& cell : layer) {
      sent += cell.x.sent + cell.recurrent.sent;
      ran += cell.ran;
      cells++;
    }
  const auto share = [](int64_t part, int64_t whole) { return double(part) / double(whole); };
  return {share(sent, columns * timesteps), share(ran, cells * timesteps), share(state.exit_counts().exits, rows)};
}

}  // namespace alstm

void bind_counters(nb::module_& m) {
  using alstm::Counted;
  nb::class_<Counted>(m, "Counted", nb::type_slots(collected<Counted>())).def("__call__", &Counted::operator());
}
