"""Records the inputs, states and gates of the LSTMs of a model while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch

from ..errors import InputError, NonFiniteError
from ..execution.batch import Batch, Initial
from ..execution.reference_cell import Step
from ..execution.reference_runner import ReferenceRunner
from ..execution.runner import PackedRunner, Result, Runner
from ..execution.torch_layer import TorchRunner
from ..policies import Dense, parts
from ..runtime.adapt import keep_settings
from ..runtime.call import Call
from ..runtime.lstm import AdaptiveLSTM
from ..types import StackShape
from ..weights.layout import CellTensors, shape_of

Keep = Literal["inputs", "states", "gates"]


@dataclass(frozen=True)
class Recorded:
    """One call of an LSTM.

    ``rows`` [n, I]: the inputs, packed: all rows of timestep 0 first.
    ``sizes``: rows alive at each timestep.
    ``initial``: h_0 [L * D, B, P] and c_0 [L * D, B, H], or None: zeros.
    ``states``: outputs of every layer [n, D * P], packed, if "states" are kept.
    ``final`` [L * D, B, P]: h_n, if "states" are kept.
    ``operands``: per cell and timestep, in the order in which they were computed, [rows, width + P] of [x ; h], if
    "gates" are kept.
    ``gates``: the pre-activations [rows, 4H] of the same; they belong to the graph that leads to the model's output.
    ``output``: what the call returned, of the same graph, if "gates" are kept.
    """

    rows: torch.Tensor
    sizes: list[int]
    initial: Initial | None
    states: list[torch.Tensor] = field(default_factory=list)
    final: torch.Tensor | None = None
    operands: list[list[torch.Tensor]] = field(default_factory=list)
    gates: list[list[torch.Tensor]] = field(default_factory=list)
    output: list[torch.Tensor] = field(default_factory=list)


class Recorder:
    """Records every call of some LSTMs of a model inside ``with recorder.recording():``.

    Args:
        lstms: by module name.
        keep: "inputs": their inputs, while they run with their settings. "states": the outputs of every layer too,
            while torch runs them with nothing skipped. "gates": all operands and gate pre-activations, while the
            reference does.
        weights: of every cell of every LSTM, for "states" and "gates"; by default those that it executes, ahead of
            quantization.
    """

    def __init__(
        self,
        lstms: Mapping[str, AdaptiveLSTM],
        keep: Keep = "inputs",
        weights: Mapping[str, Sequence[CellTensors]] | None = None,
    ):
        self.lstms, self.keep = lstms, keep
        self.calls: dict[str, list[Recorded]] = {name: [] for name in lstms}
        self._runners: dict[str, Runner] = {}
        self._reached = set[str]()
        if keep != "inputs":
            make = _States if keep == "states" else _Gates
            for name, lstm in lstms.items():
                of = lstm.executed() if weights is None else weights[name]
                like = next(lstm.parameters())
                of = [w if w.w_ih.dtype is like.dtype else w.to_device(like) for w in of]
                self._runners[name] = make(of, shape_of(lstm), self.calls[name])

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Calls inside the block are recorded; settings and monitors stay out of it."""
        if self._runners:
            with run_all_on(self.lstms, self._runners):
                yield
            return
        with keep_settings(self.lstms.values()), ExitStack() as watching:
            for name, lstm in self.lstms.items():
                watching.enter_context(lstm.watched_by(partial(self._given, name)))
            yield

    def _given(self, name: str, call: Call) -> None:
        lstm = self.lstms[name]
        batch = Batch.of(call.input, call.hx, shape_of(lstm), lstm.batch_first)
        rows, sizes = batch.packed()
        self._reached.add(name)
        self.calls[name].append(Recorded(rows.detach().clone(), sizes, batch.initial))

    def taken(self, name: str) -> list[Recorded]:
        """The calls of an LSTM since the last time, which the recorder forgets: all of them might fill the memory."""
        calls = self.calls[name].copy()
        self.calls[name].clear()
        return calls

    def outputs(self) -> torch.Tensor:
        """All outputs of all calls, end to end, in the graph of their gates.

        Raises:
            InputError: no LSTM was called.
        """
        found = [output.flatten() for calls in self.calls.values() for call in calls for output in call.output]
        if not found:
            raise InputError("the model calls none of its LSTMs")
        return torch.cat(found)

    def check_reached(self) -> None:
        """Raise ``InputError`` for LSTMs that were not called."""
        if missed := [name or "the LSTM" for name in self.lstms if name not in self._reached]:
            raise InputError(f"inputs: none reached {', '.join(missed)} (an iterator that was used up?)")

    def check_finite(self) -> None:
        """Raise ``NonFiniteError`` if an LSTM was given NaN or infinity."""
        for name, calls in self.calls.items():
            if not all(bool(torch.isfinite(call.rows).all()) for call in calls):
                raise NonFiniteError(f"{name or 'the LSTM'} was given NaN or infinity; clean the inputs")


@contextmanager
def run_all_on(lstms: Mapping[str, AdaptiveLSTM], runners: Mapping[str, Runner]) -> Iterator[None]:
    """The LSTMs run on the given runners inside the block, whatever their policy and mode."""
    with keep_settings(lstms.values()), ExitStack() as running:
        for name, runner in runners.items():
            running.enter_context(lstms[name].run_on(runner))
        yield


class _States:
    """Runs a stack on torch and keeps the outputs of every layer."""

    def __init__(self, weights: Sequence[CellTensors], shape: StackShape, calls: list[Recorded]):
        self._torch, self._calls = TorchRunner(weights, shape), calls

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``, without gradients."""
        rows, sizes = batch.packed()
        with torch.no_grad():
            levels, h, c = self._torch.levels(rows, sizes, batch.initial)
        self._calls.append(Recorded(rows.detach(), sizes, batch.initial, levels, h))
        return Result(batch.unpacked(levels[-1]), h, c, None)


class _Gates:
    """Runs a stack on the reference with gradients and keeps every operand and gate tensor."""

    def __init__(self, weights: Sequence[CellTensors], shape: StackShape, calls: list[Recorded]):
        self._calls, self._cells = calls, shape.num_cells
        self._packed = PackedRunner(ReferenceRunner(weights, shape, parts(Dense()), self._observe))

    def run(self, batch: Batch) -> Result:
        """As ``Runner.run``."""
        if not batch.x.requires_grad:  # so that the gates belong to a graph even if all parameters are frozen
            batch.x = batch.x.detach().requires_grad_()
        rows, sizes = batch.packed()
        given = batch.initial
        call = Recorded(rows.detach(), sizes, None if given is None else (given[0].detach(), given[1].detach()))
        for kept in (call.operands, call.gates):
            kept += [[] for _ in range(self._cells)]
        self._calls.append(call)
        result = self._packed.run(batch)
        call.output.append(result.y)
        return result

    def _observe(self, step: Step) -> None:
        call = self._calls[-1]
        call.operands[step.cell].append(torch.cat([step.x, step.h], dim=1).detach())
        call.gates[step.cell].append(step.gates)
