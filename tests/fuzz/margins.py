"""Tells ties at a threshold from faults, by the margin of the decision.

Two float executors round differently. Where one of them compares, a tiny difference can become a large one: a column
is sent or not (``Delta``), a layer held or not, a row exits or not, an activation falls to one int8 level or the next.
A run that differs from the reference is explained if, and only if, some decisions of the reference whose margins are
within their bound can be turned over so that *everything* comes out the same: every output and state within its bound,
every count exactly. A wrong result is not explained by this, as no tie reproduces it.

The bound of a margin. The reference is run again with all its decisions held fast and its numbers disturbed as the
kernels may disturb them: every weight by up to STRENGTH of itself, which is the backward error of a float32 sum, and
every h and c by up to CELL of what it is made of, the error of the native sigmoid and tanh, and by SHUT, where the
native sigmoid ends. A margin that moves by d then is within its bound if it is at most FACTOR * d, plus a few ulp of
what is compared (``Decision.floor``). The same experiment bounds the outputs: a recurrent network with large weights
multiplies any rounding.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from adaptive_lstm.execution import reference_cell
from adaptive_lstm.weights.layout import CellTensors

from .outcome import AT_THE_END, OF_SENT, PER_CELL, SENT, Outcome, differing, differing_rows, distance, tolerance
from .script import SHUT, ULP, Decision, Flip, Script, Tie

STRENGTH = 8 * ULP  # of a weight: four times what sums of 70 products round by, so that a gate that shuts is seen
CELL = 1.6e-6  # of h and c: kernels/elementwise.inc gives e^x - 1 to about 2e-7
FACTOR = 2.0  # what so few random disturbances may miss of the worst one
RUNS = 6
MOST_TIES, MOST_RUNS = 30, 200  # per run, and of a search


class Noise:
    """Random numbers in -1..1 from a seed; those of seeds 2k and 2k + 1 are opposite, so that one turns a sign."""

    def __init__(self, seed: int):
        self._sign = 1 - 2 * (seed % 2)
        self._generator = torch.Generator().manual_seed(seed // 2)

    def like(self, t: torch.Tensor) -> torch.Tensor:
        """In the shape and dtype of a tensor."""
        return self._sign * (torch.rand(t.shape, generator=self._generator, dtype=torch.float64).to(t.dtype) * 2 - 1)


@contextmanager
def disturbed_cells(noise: Noise) -> Iterator[None]:
    """Inside, every cell of the reference errs."""
    plain = reference_cell.cell_update

    def update(gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h, after = plain(gates, c)
        size = after.abs() + c.abs()  # of what is added up; it may cancel
        error = CELL * (h.abs() + size.clamp(max=1)) + SHUT, CELL * size + SHUT
        return h + error[0] * noise.like(h), after + error[1] * noise.like(c)

    with mock.patch.object(reference_cell, "cell_update", update):
        yield


def disturbed(weights: Sequence[CellTensors], strength: float, noise: Noise) -> list[CellTensors]:
    """Weights of which each errs by up to ``strength`` of itself."""

    def err(w: torch.Tensor | None) -> Any:
        return None if w is None else w * (1 + strength * noise.like(w))

    names = ("w_ih", "w_hh", "bias", "w_hr")
    return [dataclasses.replace(w, **{name: err(getattr(w, name)) for name in names}) for w in weights]


@dataclass(frozen=True)
class Explanation:
    """Why a run may differ from the reference.

    ``ties``: the kind of every decision that went the other way, and its margin as a share of its bound.
    ``widest``: the largest bound of an output; where it is large, rounding alone may have changed it as much.
    """

    ties: tuple[Tie, ...]
    widest: float


Run = Callable[[Script | None, Noise | None], Outcome]
"""The reference, under a script and disturbed by a generator if they are given."""


def explain(got: Outcome, run: Run, most_runs: int = MOST_RUNS) -> Explanation | None:
    """Why a run gave ``got`` where the reference gives something else; None: it is a fault.

    Args:
        got: what the native run gave.
        run: runs the reference.
        most_runs: of the reference, after which the search gives up.
    """
    ticket = itertools.count()
    queue: list[tuple[tuple[int, int], int, Mapping[Flip, Tie]]] = [((0, 0), next(ticket), {})]
    tried: set[frozenset[Flip]] = set()
    runs = 0
    while queue and runs < most_runs:
        _, _, flips = heapq.heappop(queue)
        measured = _measure(run, flips)
        runs += 1 + RUNS
        if not differing(got, measured.outcome, measured.allowed):
            return Explanation(tuple(flips.values()), measured.widest)
        ties = measured.ties()
        counts = measured.recounted(ties, got)
        if counts is not None:
            return Explanation((*flips.values(), *counts), measured.widest)
        if measured.only_counts_that_skip_work(got):  # whether columns are sent, or how rounded, has no part in them
            ties = {flip: tie for flip, tie in ties.items() if tie[0].split()[0] in ("hold", "exit")}
        in_order = got.in_order and measured.outcome.in_order
        rows = differing_rows(got, measured.outcome, measured.allowed) if in_order else set()
        if rows:
            ties = {flip: tie for flip, tie in ties.items() if flip[1] in rows}
        for turned in (measured.evident(ties, got), *closest_ties(ties)):
            more = {**flips, **turned}
            if len(more) == len(flips) or frozenset(more) in tried:
                continue
            tried.add(frozenset(more))
            runs += 1
            score = distance(got, run(Script(more), None), measured.allowed)
            heapq.heappush(queue, (score, next(ticket), more))
            if not any(score):
                break
    return None


def closest_ties(ties: Mapping[Flip, Tie]) -> list[dict[Flip, Tie]]:
    """The closest ties. Those of one number go together: both directions of a layer round the same input."""
    alike: dict[object, dict[Flip, Tie]] = {}
    for (place, row, column), tie in ties.items():
        alike.setdefault((row, column, tie), {})[place, row, column] = tie
    return sorted(alike.values(), key=lambda one: next(iter(one.values()))[1])[:MOST_TIES]


@dataclass(frozen=True)
class _Measured:
    """A run of the reference with what is known of its conditioning.

    ``decisions`` with ``moved``: by how much their margins moved when it was disturbed.
    ``allowed``: bounds of its outputs.
    """

    outcome: Outcome
    decisions: Sequence[Decision]
    moved: Sequence[torch.Tensor]
    allowed: Mapping[str, torch.Tensor]

    @property
    def widest(self) -> float:
        """The largest bound of a float between -1 and 1."""
        return max(
            (float(a.max()) for name, a in self.allowed.items() if name.startswith("y") and a.numel()), default=0
        )

    def ties(self) -> dict[Flip, Tie]:
        """Decisions that are within their bounds."""
        found: dict[Flip, Tie] = {}
        for d, moved in zip(self.decisions, self.moved, strict=True):
            if not d.margin.numel():
                continue
            share = (d.margin.abs() / (d.floor + FACTOR * moved)).nan_to_num(float("inf")).view(len(d.rows), -1)
            for n, column in (share <= 1).nonzero().tolist():
                found[d.place, int(d.rows[n]), column] = d.kind, float(share[n, column])
        return found

    def only_counts_that_skip_work(self, got: Outcome) -> bool:
        """Whether nothing but counts differs, and others than those of columns do."""
        if differing(got, self.outcome, self.allowed).keys() != {"counts"}:
            return False
        cells = len(got.counts) - AT_THE_END
        return any(
            a != b and at != cells + OF_SENT and (at >= cells or at % PER_CELL not in SENT.values())
            for at, (a, b) in enumerate(zip(got.counts, self.outcome.counts, strict=True))
        )

    def recounted(self, ties: Mapping[Flip, Tie], got: Outcome) -> list[Tie] | None:
        """The closest ties by which the counts of columns come out the same, if nothing else differs; or None.

        That happens where values hardly move, for example in units that are shut: each column that one run sends and
        the other does not is a tie of its own, there are many, and no output depends on them.
        """
        if differing(got, self.outcome, self.allowed).keys() != {"counts"}:
            return None
        decided = {(d.place, int(row)): d.decided.view(len(d.rows), -1)[n] for d in self.decisions
                   if d.kind.startswith("send") for n, row in enumerate(d.rows)}  # fmt: skip
        needed: list[Tie] = []
        for at, (a, b) in enumerate(zip(got.counts, self.outcome.counts, strict=True)):
            cell, number = divmod(at, PER_CELL)
            operand = next((name for name, field in SENT.items() if field == number), "")
            if a == b or at == len(got.counts) - AT_THE_END + OF_SENT:
                continue
            if at >= len(got.counts) - AT_THE_END or not operand:
                return None
            kind = f"send {operand} of {cell}"
            able = [tie for (place, row, column), tie in ties.items()
                    if tie[0] == kind and bool(decided[place, row][column]) == (b > a)]  # fmt: skip
            if len(able) < abs(a - b):
                return None
            needed += sorted(able, key=lambda tie: tie[1])[: abs(a - b)]
        return needed

    def evident(self, ties: Mapping[Flip, Tie], got: Outcome) -> dict[Flip, Tie]:
        """Those of the ties that the state at the end of the native run says were decided otherwise."""
        found: dict[Flip, Tie] = {}
        for d in self.decisions:
            said = None if d.evidence is None else d.evidence(got)
            if said is not None and said.numel():
                for n, column in (said != d.decided).view(len(d.rows), -1).nonzero().tolist():
                    flip = d.place, int(d.rows[n]), column
                    if flip in ties:
                        found[flip] = ties[flip]
        return found


def _measure(run: Run, flips: Collection[Flip]) -> _Measured:
    script = Script(flips)
    outcome = run(script, None)
    allowed = {name: tolerance(t) for name, t in outcome.tensors.items() if t.is_floating_point()}
    spread = {name: torch.zeros_like(t) for name, t in allowed.items()}
    moved = [torch.zeros_like(d.margin) for d in script.decisions]
    for seed in range(RUNS):
        again = Script(frozen=script.decisions)
        other = run(again, Noise(seed))
        for name, most in spread.items():
            off = (other.tensors[name] - outcome.tensors[name]).abs().nan_to_num(0.0)
            spread[name] = torch.maximum(most, _of_row(off))
        found = {d.place: d.margin for d in again.decisions}
        for k, d in enumerate(script.decisions):
            moved[k] = torch.maximum(moved[k], _of_row(d.distance(found[d.place])))
    allowed = {name: limit + FACTOR * spread[name] for name, limit in allowed.items()}
    return _Measured(outcome, script.decisions, moved, allowed)


def _of_row(off: torch.Tensor) -> torch.Tensor:
    """The largest of a row for all of it: one disturbance may leave a single element alone by chance."""
    return off if off.dim() < 2 or not off.numel() else off.amax(dim=-1, keepdim=True).expand_as(off)
