"""The search of ``compress_within``: from the gentlest choice to the boldest, until one changes the output too much.

A bolder choice is tried only where a gentler one has kept the budget, so most of the costly ones never run. Weights are
first rounded to nearest, which costs nothing; compensated rounding, refits on the outputs of pruned layers and the
search of ``Prune`` follow where they can decide. A few held-out batches tell what is hopeless; what is kept has been
judged on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from ..analysis.measure_sensitivity import Output, measure_sensitivities
from ..analysis.sensitivity import Sensitivity
from ..progress import Deadline, Progress
from ..runtime.adapt import adapted_lstms
from ..weights.fingerprint import weights_digest
from ..weights.layout import shape_of
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from .compensated_rounding import round_runs, weights_of
from .compress import with_scales
from .output_error import outputs, relative_change
from .pruning import Prune, prune_model
from .pruning.candidate import CandidateBuilder
from .pruning.masks import Recipe
from .pruning.search import FIRST_RIDGE, SWEEPS
from .pruning.stack import dense_run

Choice = tuple[Prune | None, list[Quantize]]  # how to prune, and the precisions to try then, bytes rising
Replaced = Mapping[str, ReplacedWeights]
Item = TypeVar("Item")

QUICK = Recipe("second-order", 0.5, "refit", FIRST_RIDGE, sweeps=0)  # without a search
FEW = 8  # held-out batches that a choice is first judged by
HOPELESS = 3.0  # times the budget on those
WORTH_ROUNDING = 2.0  # times the budget: compensated rounding may help
WORTH_SEARCHING = 1.5  # times the budget: other settings of ``Prune`` may help
SEARCHED = 2e9  # rows times columns squared of all cells, above which that search takes longer than minutes
PROBES = 2


@dataclass(frozen=True, eq=False)
class Kept:
    """Weights and precision that keep the budget.

    ``replaced``: weights by LSTM, before compensated rounding where ``rounded`` is False.
    ``precisions``: what was tried up to the one that fits, which is the last.
    ``words``: for people.
    """

    replaced: Replaced
    precisions: Sequence[Quantize]
    rounded: bool
    words: str


class BudgetSearch:
    """Finds the smallest model within a budget; ``best`` is what was found so far.

    Args:
        model: an adapted model whose LSTMs skip nothing and execute their parameters.
        fit: batches to fit on.
        held: held-out batches.
        change: the budget.
        output: picks the output whose change is measured.
        deadline: when to stop; ``OutOfTimeError`` comes out of ``run``, and ``best`` stays.
        bar: shows what is done.
        patient: whether the search of ``Prune`` may take as long as it wants.
        sensed: batches that the sensitivity of the output is measured on.
    """

    def __init__(
        self,
        model: nn.Module,
        fit: Sequence[Any],
        held: Sequence[Any],
        change: float,
        output: Output,
        deadline: Deadline,
        bar: Progress,
        *,
        patient: bool,
        sensed: int,
    ):
        self.model, self.lstms = model, adapted_lstms(model)
        self.fit, self.held, self.change, self.output = fit, held, change, output
        self.deadline, self.bar, self.sensed = deadline, bar, sensed
        self.best: Kept | None = None
        self.sensitivities: Mapping[str, Sensitivity] = {}
        self.search_left_out = False
        work = sum(
            4 * s.hidden_size * (s.input_width(cell) + s.output_size) ** 2
            for s in map(shape_of, self.lstms.values())
            for cell in range(s.num_cells)
        )
        self._may_search = patient or work <= SEARCHED
        self._dense: list[torch.Tensor] = []
        self._builder: CandidateBuilder | None = None
        self._raw_scales: dict[str, Any] | None = None

    def run(self, choices: Sequence[Choice]) -> None:
        """Try the choices, of which the smallest models come first.

        Raises:
            OutOfTimeError: the deadline has passed.
        """
        self._dense = self._outputs(self.held)
        plain = next(i for i, (prune, _) in enumerate(choices) if prune is None)
        for prune, precisions in (choices[plain], *reversed(choices[:plain])):
            if not self._meets(prune, precisions):
                break
        if self.best is None:
            any(self._meets(prune, precisions) for prune, precisions in choices[plain + 1 :])
        if self.best is not None and not self.best.rounded:
            self._rounded(self.best.replaced, self.best.precisions, self.best.words)

    def apply(self, kept: Kept | None) -> None:
        """Set what was found, or the parameters."""
        precision = self._scaled(kept.precisions[-1]) if kept else dict.fromkeys(self.lstms, Quantize())
        self._set(kept.replaced if kept else {}, precision)

    def _meets(self, prune: Prune | None, precisions: Sequence[Quantize]) -> bool:
        """Whether a choice keeps the budget, with more and more effort where that may help."""
        words = f"{precisions[-1].precision}" + (f", {prune.share:.0%} pruned ({prune.pattern})" if prune else "")
        self.bar.note(words)
        found = math.inf
        for replaced in self._ways(prune):
            now = self._first_fit(replaced, precisions, words)
            if self.change < now <= WORTH_ROUNDING * self.change:
                now = min(now, self._rounded(replaced, precisions, words))
            found = min(found, now)
            if found <= self.change or found > WORTH_SEARCHING * self.change:
                break
        return found <= self.change

    def _ways(self, prune: Prune | None) -> Iterator[Replaced]:
        """Weights of a choice, each with more effort than the one before."""
        if prune is None:
            yield {}
            return
        yield self._pruned(prune, QUICK)
        yield self._pruned(prune, replace(QUICK, sweeps=SWEEPS))
        if not self._may_search:
            self.search_left_out = True
            return
        yield prune_model(
            self.model,
            self.fit,
            prune,
            sensitivities=self._built().sensitivities,
            output=self.output,
            tick=self.deadline.check,
        )

    # ------------------------------------------------------------------------------------------------- one trial

    def _first_fit(
        self, replaced: Replaced, precisions: Sequence[Quantize], words: str, *, rounded: bool = False
    ) -> float:
        """The smallest change; the first precision that keeps the budget ends the row and becomes ``best``."""
        smallest = math.inf
        for i, precision in enumerate(precisions):
            self._set(replaced, self._scaled(precision))
            smallest = min(smallest, self._change())
            self.bar.advance()
            if smallest <= self.change:
                self.best = Kept(replaced, precisions[: i + 1], rounded, words)
                break
        return smallest

    def _rounded(self, replaced: Replaced, precisions: Sequence[Quantize], words: str) -> float:
        """As ``_first_fit``, with int8 weights rounded so that others compensate."""
        smallest = math.inf
        made: dict[Quantize, Replaced] = {}
        for precision in precisions:
            grids = replace(precision, levels=0, input_levels=0)  # levels of activations do not change weights
            if grids not in made:
                made[grids] = self._round(replaced, self._scaled(precision))
                self.bar.advance()
            if made[grids].keys() != replaced.keys() or any(made[grids][n] is not replaced[n] for n in replaced):
                smallest = min(smallest, self._first_fit(made[grids], [precision], words, rounded=True))
            if smallest <= self.change:
                break
        return smallest

    def _round(self, replaced: Replaced, precision: Mapping[str, Quantize]) -> Replaced:
        builder = self._built()
        runs = builder.dense
        seen = {name: [data.moments for data in cells] for name, cells in builder.cells.items()}
        if replaced:
            weights = weights_of(self.lstms, replaced)
            tick = self.deadline.check
            runs = {name: dense_run(run.shape, weights[name], run.calls, tick) for name, run in runs.items()}
            seen = {}
        return dict(replaced) | round_runs(runs, precision, self.lstms, seen=seen, tick=self.deadline.check)

    def _pruned(self, prune: Prune, recipe: Recipe) -> Replaced:
        weights = self._built().weights(recipe, prune)
        self.bar.advance()
        return {name: ReplacedWeights(weights[name], weights_digest(lstm)) for name, lstm in self.lstms.items()}

    def _built(self) -> CandidateBuilder:
        """What pruning and rounding rest on, measured once for all choices."""
        if self._builder is None:
            self._set({}, dict.fromkeys(self.lstms, Quantize()))
            few = spread(self.fit, self.sensed)
            over = self.deadline.over
            self.sensitivities = measure_sensitivities(
                self.model, over(few), probes=PROBES, output=self.output, progress=False
            )
            self.bar.advance()
            self._builder = CandidateBuilder(
                self.model, self.lstms, Prune(), self.fit, self.sensitivities, None, self.output, self.deadline.check
            )
            self.bar.advance()
        return self._builder

    # ---------------------------------------------------------------------------------------------- the model

    def _change(self) -> float:
        """Of the output by what is set now; on a few held-out batches only where it is hopeless."""
        step = max(1, len(self.held) // FEW)
        if step > 1:
            rough = relative_change(self._dense[::step], self._outputs(self.held[::step]))
            if rough > HOPELESS * self.change:
                return rough
        return relative_change(self._dense, self._outputs(self.held))

    def _outputs(self, batches: Sequence[Any]) -> list[torch.Tensor]:
        return outputs(self.model, self.deadline.over(batches), self.output)

    def _scaled(self, precision: Quantize) -> dict[str, Quantize]:
        """The settings of every LSTM; ranges of raw features are measured once."""
        if not any(precision.lacks_scale(shape_of(lstm)) for lstm in self.lstms.values()):
            return with_scales(self.model, self.lstms, None, precision)
        if self._raw_scales is None:
            self._set({}, dict.fromkeys(self.lstms, Quantize()))
            scaled = with_scales(self.model, self.lstms, self.deadline.over(self.fit), precision)
            self._raw_scales = {name: one.raw_scale for name, one in scaled.items()}
        return {name: replace(precision, raw_scale=scale) for name, scale in self._raw_scales.items()}

    def _set(self, replaced: Replaced, precision: Mapping[str, Quantize]) -> None:
        for name, lstm in self.lstms.items():
            lstm.plan = replace(lstm.plan, replaced=replaced.get(name), quantize=precision[name])


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most so many of the items, evenly spread."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
