"""A script of the decisions of a run of the reference: written down, turned over, or repeated.

What the reference decides by comparing floats goes through a script: its policies (``scripted``), and here the rounding
of activations to int8 levels and the question whether a value is the one last sent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from adaptive_lstm.execution import reference_cell
from adaptive_lstm.execution.reference_cell import ReferenceCell, _Operand
from adaptive_lstm.types import Site
from adaptive_lstm.weights.precision import MAX_LEVELS

from .outcome import Outcome

ULP = 2.0**-23
SHUT = 2.3e-29  # what is left of a gate that is shut: the native sigmoid ends at e^-66 (elementwise.inc), torch's at 0

Evidence = Callable[[Outcome], "torch.Tensor | None"]
Place = tuple[object, ...]
"""Which call of the reference decides: the kind of step, its cell and timestep, how often before, and which operand."""
Flip = tuple[Place, int, int]
"""A decision that is turned over: where, for which batch row and column."""
Tie = tuple[str, float]
"""The kind of a decision, and its margin as a share of its bound."""


@dataclass(frozen=True)
class Decision:
    """The decisions of one call of the reference, all of one kind.

    ``kind``: "hold", "exit in time", "exit in depth", "level", or as ``sends`` gives it.
    ``decided``: bool, or whole numbers for "level".
    ``margin``: how far what was compared is from where the decision would turn; signed where that helps.
    ``floor``: a few ulp of what was compared.
    ``place``, ``rows``: where, and for which batch rows.
    ``evidence``: what a native run that ends here has decided, read from its state; None: it does not say.
    """

    kind: str
    decided: torch.Tensor
    margin: torch.Tensor
    floor: torch.Tensor
    place: Place
    rows: torch.Tensor
    evidence: Evidence | None = None

    def distance(self, margin: torch.Tensor) -> torch.Tensor:
        """How far the margin has moved to this one. Levels repeat: past a whole number +0.5 becomes -0.5."""
        off = (margin - self.margin).abs().nan_to_num(0.0)
        return torch.minimum(off, (1 - off).abs()) if self.kind == "level" else off


class Script:
    """Writes down the decisions of a run of the reference, and turns some over or repeats those of another run.

    Args:
        flips: decisions to turn over.
        frozen: decisions to repeat instead of deciding anew; they are those of a run with the same flips.
    """

    def __init__(self, flips: Collection[Flip] = (), frozen: Sequence[Decision] = ()):
        self.flips: dict[Place, list[tuple[int, int]]] = {}
        for place, row, column in flips:
            self.flips.setdefault(place, []).append((row, column))
        self.frozen = {d.place: d.decided for d in frozen}
        self.decisions: list[Decision] = []
        self._place: Place = ()
        self.rows: torch.Tensor | None = None
        self.fresh: torch.Tensor | None = None  # which rows of the operand that is sent have sent nothing yet
        self._visits: Counter[Place] = Counter()
        self._running = False  # whether a cell is: what is rounded elsewhere lies on its grid already

    def at(self, *place: object, rows: torch.Tensor | None = None) -> None:
        """The decisions that follow are made here, for these batch rows, or for all of them."""
        self._visits[place] += 1
        self._place, self.rows = (*place, self._visits[place]), rows

    def decide(
        self,
        kind: str,
        natural: torch.Tensor,
        margin: torch.Tensor,
        floor: torch.Tensor,
        evidence: Evidence | None = None,
    ) -> torch.Tensor:
        """What to do [n, ...]: ``natural`` unless the script says otherwise."""
        self._visits[self._place] += 1
        place, decided = (*self._place, self._visits[self._place]), natural
        rows = torch.arange(len(natural)) if self.rows is None else self.rows
        if place in self.frozen:
            decided = self.frozen[place]
        elif place in self.flips:
            decided = decided.clone()
            for row, column in self.flips[place]:
                for n in (rows == row).nonzero()[:, 0].tolist():
                    _turn(decided.view(len(natural), -1)[n], margin.view(len(natural), -1)[n], column)
        self.decisions.append(Decision(kind, decided, margin, floor, place, rows, evidence))
        return decided

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the reference says where it is, and its roundings of activations to whole numbers are decisions."""
        plain, cell = torch.Tensor.round, reference_cell.ReferenceCell
        plain_advance, plain_actions, plain_estimate = cell.advance, cell.actions, _Operand.estimate

        def rounded(value: torch.Tensor) -> torch.Tensor:
            whole = plain(value)
            if not self._running:
                return whole
            # Signed by the side of the whole number that the value is on; 0.5 is the edge.
            margin = torch.where(value >= whole, 0.5 - (value - whole), -(0.5 - (whole - value)))
            margin = margin.masked_fill(whole.abs() > MAX_LEVELS, float("inf"))  # clipped to the last level anyway
            return self.decide("level", whole, margin, 4 * ULP * value.abs())

        def advance(self_: ReferenceCell, x: torch.Tensor, rows: torch.Tensor, time: int) -> None:
            self.at("run", self_.index, time, rows=rows)
            self._running = True
            plain_advance(self_, x, rows, time)
            self._running = False

        def actions(self_: ReferenceCell, x: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
            self.at("hold", self_.index)
            return plain_actions(self_, x, below)

        def estimate(operand: _Operand, value: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.fresh = operand.fresh[rows].expand_as(value)
            if operand.thresholded and not operand.levels:
                value, old, site = reference_cell._flushed(value), operand.sent[rows], operand.site
                # What equals the last is not sent, not even at first; elsewhere the threshold is the finer sieve.
                idle = ~(self.fresh | no_threshold(operand.policy, site, value))
                margin, natural = (value - old).abs().masked_fill(idle, float("inf")), value != old
                floor = torch.full_like(old, SHUT)
                turned = self.decide(sends(site), natural, margin, floor, read_sent(site, rows, old))
                other = torch.where(natural, old, old + (ULP * old.abs()).clamp(min=SHUT))
                value = torch.where(turned == natural, value, other)
            return plain_estimate(operand, value, rows)

        with (
            mock.patch.object(torch.Tensor, "round", rounded),
            mock.patch.object(_Operand, "estimate", estimate),
            mock.patch.object(cell, "advance", advance),
            mock.patch.object(cell, "actions", actions),
        ):
            yield


def sends(site: Site) -> str:
    """The kind of a decision to send columns."""
    return f"send {site.operand} of {site.cell}"


def no_threshold(policy: Any, site: Site, like: torch.Tensor) -> torch.Tensor:
    """Columns [n, C] that are sent whenever they change."""
    return torch.as_tensor(policy.threshold(site) == 0).expand_as(like)


def read_sent(site: Site, rows: torch.Tensor | None, before: torch.Tensor) -> Evidence:
    """What was sent [n, C], read from the values last sent."""
    name = f"sent_{site.operand}[{site.cell}]"

    def evidence(got: Outcome) -> torch.Tensor | None:
        return None if rows is None or name not in got.tensors else got.tensors[name][rows] != before

    return evidence


def _turn(decided: torch.Tensor, margin: torch.Tensor, column: int) -> None:
    if decided.dtype == torch.bool:
        decided[column] = ~decided[column]
    else:  # to the next level on the side that the value is on
        decided[column] += math.copysign(1.0, float(margin[column]))  # at the edge itself the zero has a sign
