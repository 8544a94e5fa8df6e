"""The quality of a contender on the labelled data, and when it equals that of the original.

Equal quality: every task figure within 1 % of that of dense float32, or within one decision where that is more (an
equal error rate of 2 in 450 cannot change by 1 %), in either direction: a contender that changes many decisions and
happens to end with a better figure is another model, not a faster one. A model without labels must stay within FIDELITY
of the original by its own distance.

The labelled data are thinned where all of them would take too long: the original is measured on the same part.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from adaptive_lstm.peers.drop_in import DropInPeer
from eval.frontier.field import Entry
from eval.zoo.base import ZooModel

WITHIN = 0.01  # of the figure
FIDELITY = 0.01  # largest distance from the original, of models without labelled data
# Models whose labelled data take long. The speaker encoder is not among them: its error rate is a rate of pairs, and
# half of the utterances make a quarter of these.
EVERY = {
    "arabic": 2,
    "charrnn-bolano": 3,
    "chemnet": 3,
    "nnsplit-de": 2,
    "nnsplit-en": 2,
    "pjm": 4,
    "textgenrnn-base": 4,
}
QUICK_EVERY = 4
STREAMED = 4  # inputs that int8 peers also read step by step


@dataclass(frozen=True)
class Quality:
    """figures: task figures by name. distance: from the original, whole sequences; of int8 peers also step by step.

    kept: whether the quality equals that of the original; lost: the figure that differs, as text, or "".
    """

    figures: Mapping[str, float]
    distance: float
    distance_steps: float | None
    kept: bool
    lost: str


class Yardstick:
    """The original's figures and outputs, with which contenders are compared."""

    def __init__(self, model: ZooModel, *, quick: bool) -> None:
        self.model = model
        self.every = EVERY.get(model.name, 1) * (QUICK_EVERY if quick else 1)
        self.figures = model.measure(model.model, self.every)
        self.dense = model.outputs(model.model)

    def judge(self, entry: Entry) -> Quality:
        """Run a contender over the labelled data and the inputs."""
        rows = _wrapped(entry.model, OneByOne) if entry.precision == "int8" else entry.model
        figures = self.model.measure(rows, self.every)
        distance = self.model.compare(self.model.outputs(rows), self.dense)
        lost = self._lost(figures, distance)
        return Quality(figures, distance, self._distance_steps(entry), not lost, lost)

    def _lost(self, figures: Mapping[str, float], distance: float) -> str:
        if not self.figures and not distance <= FIDELITY:
            return f"{self.model.distance.name} {distance:.4f}, allowed {FIDELITY:g}"
        for name, dense in self.figures.items():
            slack = allowed(name, dense, self.every, self.model.decisions)
            if not keeps(figures[name], dense, slack):
                return f"{name} {figures[name]:.4g} instead of {dense:.4g}"
        return ""

    @torch.no_grad()
    def _distance_steps(self, entry: Entry) -> float | None:
        """int8 peers scale the input of a call: a step has another scale than a sequence, and another quality."""
        plugged = [m for m in entry.model.modules() if isinstance(m, DropInPeer)]
        if entry.precision != "int8" or any(one.bidirectional for one in plugged):
            return None
        stepping = _wrapped(entry.model, StepByStep)
        few = [self.model.distance.between(_first(stepping(x)), d) for x, d in self._few()]
        return sum(few) / len(few)

    def _few(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.model.inputs, self.dense, strict=True))[:STREAMED]


def allowed(name: str, dense: float, every: int, decisions: Mapping[str, int]) -> float:
    """How far a figure may move: 1 %, or one decision where that is more."""
    one = every / decisions[name] if name in decisions else 0.0
    return max(WITHIN * abs(dense), one * (1 + 1e-6))  # rounding must not count as a decision


def keeps(got: float, dense: float, slack: float) -> bool:
    """Whether a figure is the original's up to ``slack``; NaN is not."""
    return abs(got - dense) <= slack


# ------------------------------------------------------------------------------------------------ peers in a model


class OneByOne(nn.Module):
    """A batch row by row: int8 peers use one scale for the whole input of a call, and are timed on one sequence."""

    def __init__(self, lstm: DropInPeer) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Any, hx: tuple[Tensor, Tensor] | None = None) -> Any:
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x, batch_first=True)
            called = [self.lstm(row[None, :length]) for row, length in zip(padded, lengths.tolist(), strict=True)]
            return pack_sequence([y[0] for y, _ in called], enforce_sorted=False), _joined(called)
        states = [None] * len(x) if hx is None else list(zip(hx[0].split(1, 1), hx[1].split(1, 1), strict=True))
        called = [self.lstm(row, state) for row, state in zip(x.split(1), states, strict=True)]
        return torch.cat([y for y, _ in called]), _joined(called)


class StepByStep(nn.Module):
    """A sequence [1, T, I] in T calls with the state carried on, as a stream is served."""

    def __init__(self, lstm: DropInPeer) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        outputs = []
        for frame in x.split(1, dim=1):
            y, hx = self.lstm(frame, hx)
            outputs.append(y)
        return torch.cat(outputs, dim=1), hx


def _joined(called: list[Any]) -> tuple[Tensor, Tensor]:
    return torch.cat([h for _, (h, _) in called], 1), torch.cat([c for _, (_, c) in called], 1)


def _wrapped(model: nn.Module, wrapper: type[OneByOne] | type[StepByStep]) -> nn.Module:
    """A copy of a model that holds the same peers, each in a wrapper."""
    memo: dict[int, Any] = {id(m): wrapper(m) for m in model.modules() if isinstance(m, DropInPeer)}
    return deepcopy(model, memo)


def _first(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
