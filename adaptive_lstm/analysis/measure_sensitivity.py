"""The calibration pass: runs a model over inputs and measures its LSTMs, as ``Sensitivity`` describes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..codec import brief, is_whole
from ..errors import InputError, NonFiniteError
from ..model_io import Opaque, as_batches, call, first_tensor, picked, require_function, require_gradients, runs_model
from ..progress import tracked
from ..runtime.adapt import adapted_lstms, lstms_of
from ..runtime.lstm import AdaptiveLSTM
from ..types import DoubleArray
from ..weights.layout import float32, shape_of
from .delta_curves import Curves, simulate_delta, threshold_grid
from .recorder import Recorded, Recorder
from .sensitivity import Sensitivity

Output = Callable[[Any], torch.Tensor]

MOST_PROBES = 10_000
_ROWS = 4096  # operands that are multiplied in float64 at once


class _Sums:
    """What has been added up for one LSTM so far; lists have one entry per layer and direction."""

    def __init__(self, lstm: AdaptiveLSTM):
        self.shape = shape_of(lstm)
        self.weights = tuple((float32(t.w_ih).copy(), float32(t.w_hh).copy()) for t in lstm.executed())
        self.thresholds = [threshold_grid(np.hstack(cell)) for cell in self.weights]
        self.steps = 0
        self.rows: list[DoubleArray] = [np.zeros(4 * self.shape.hidden_size) for _ in self.weights]
        self.first = [np.zeros(t.shape[1]) for t in self.thresholds]
        self.second = [np.zeros((t.shape[1],) * 2) for t in self.thresholds]
        self.sent = [np.zeros(t.shape) for t in self.thresholds]
        self.squares = [np.zeros(t.shape) for t in self.thresholds]

    def add_operands(self, call: Recorded) -> None:
        """Add the operands z = [x ; h] of a call, in the order in which they were computed."""
        self.steps += len(call.rows)
        for cell, steps in enumerate(call.operands):
            for part in torch.cat(steps).split(_ROWS):
                z = part.double()
                self.first[cell] += z.sum(0).cpu().numpy()
                self.second[cell] += (z.T @ z).cpu().numpy()
            sent, squares = simulate_delta(steps, self.thresholds[cell])
            self.sent[cell] += sent
            self.squares[cell] += squares

    def add_gradients(self, call: Recorded, gradients: Iterator[torch.Tensor | None]) -> None:
        """Add gradients of one projection of the output with respect to the gates of a call, in their order."""
        for cell, steps in enumerate(call.gates):
            for g in itertools.islice(gradients, len(steps)):
                if g is not None:
                    self.rows[cell] += g.double().pow(2).sum(0).cpu().numpy()

    def sensitivity(self, probes: int) -> Sensitivity:
        """The averages."""
        n = max(self.steps, 1)
        return Sensitivity(
            shape=self.shape,
            steps=self.steps,
            rows=tuple(s / (n * probes) for s in self.rows),
            weights=self.weights,
            moments=tuple(s / n for s in self.second),
            means=tuple(s / n for s in self.first),
            curves=tuple(
                Curves(t, sent / n, squares / n)
                for t, sent, squares in zip(self.thresholds, self.sent, self.squares, strict=True)
            ),
        )


def projected_gradients(
    out: torch.Tensor, tensors: Sequence[torch.Tensor], count: int, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """Gradients of v . ``out`` with respect to the tensors, for ``count`` random projections v, standard normal.

    Raises:
        InputError: no gradient leads from the output to an LSTM, or the graph of an earlier run does.
    """
    if not (tensors and out.requires_grad):
        raise InputError(_NO_GRADIENT)
    if not all(tensor.requires_grad for tensor in tensors):
        raise InputError(
            "the model calls an LSTM under torch.no_grad() or inference_mode(): the output does not depend on any "
            "LSTM there as far as gradients tell; call it without, and the whole model under no_grad where you need "
            "no gradients"
        )
    for index in range(count):
        v = torch.randn(out.shape, generator=generator, dtype=torch.float64, device="cpu").to(out)
        more = index + 1 < count
        try:
            found = torch.autograd.grad((out * v).sum(), tensors, retain_graph=more, allow_unused=True)
        except RuntimeError as error:
            if not any(words in str(error) for words in _OF_EARLIER_RUNS):
                raise
            raise InputError(
                "gradients lead from the output into an earlier run of the model: it goes on from a tensor that it has "
                "kept where nothing can put it back, in a closure or a global variable, or writes to it in place. Keep "
                "what it remembers in an attribute of the module, or detached (state.detach())"
            ) from error
        if all(gradient is None for gradient in found):
            raise InputError(_NO_GRADIENT)
        yield found


_NO_GRADIENT = (
    "the output does not depend on any LSTM as far as gradients tell; pass output=... to pick one that does, and look "
    "for torch.no_grad(), detach() or numpy between an LSTM and the output"
)
_OF_EARLIER_RUNS = ("backward through the graph a second time", "modified by an inplace operation")  # torch's words


@runs_model
def measure_sensitivities(
    model: nn.Module,
    inputs: Iterable[Any],
    *,
    probes: int = 8,
    output: Output = first_tensor,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Sensitivity]:
    """Output sensitivity of every adapted LSTM of a model, by module name.

    Where no gradient leads from the output back to the LSTMs (``onnx.Session.model``: ONNX Runtime computes between
    them), each LSTM's own outputs are measured in place of the model's.

    Args:
        model: an adapted model (``adapt``) in eval mode; any layers around the LSTMs.
        inputs: batches, each as the model takes it: a tensor, a ``PackedSequence``, a tuple of arguments, or a dict
            of arguments by name. One tensor or dict alone is one batch. Memory grows with one batch at a time: a few
            hundred sequences in batches of 16 to 64 are plenty.
        probes: random projections of the output per batch.
        output: picks the tensor to measure from what the model returns; default: the first one.
        seed: of the projections.
        progress: show a bar, where stderr is a terminal.

    Raises:
        InputError: no adapted LSTM, no inputs, training mode, or an output that depends on no LSTM.
        NonFiniteError: the model's output holds NaN or infinity.
    """
    lstms = adapted_lstms(model)
    if not (is_whole(probes) and 1 <= probes <= MOST_PROBES):
        raise InputError(
            f"probes: got {brief(probes)}, expected a whole number, at least 1 and at most {MOST_PROBES:,}"
        )
    if not is_whole(seed):
        raise InputError(f"seed: got {brief(seed)}, expected a whole number")
    require_function(output)
    require_gradients(model)
    sums = {name: _Sums(lstm) for name, lstm in lstms.items()}
    seen = 0
    for item in tracked(as_batches(inputs), "sensitivity", "batch", show=progress):
        seen += 1
        generator = torch.Generator().manual_seed((int(seed) + seen) % 2**63)
        recorder = Recorder(lstms, "gates")
        with torch.enable_grad(), recorder.recording():
            out = picked(output, call(model, item))
            if not bool(torch.isfinite(out).all()):
                raise NonFiniteError(f"the model's output for batch {seen} holds NaN or infinity; clean the inputs")
            gates = [g for calls in recorder.calls.values() for made in calls for cell in made.gates for g in cell]
            measured = recorder.outputs() if isinstance(model, Opaque) else out
            for found in projected_gradients(measured, gates, probes, generator):
                gradients = iter(found)
                for name, calls in recorder.calls.items():
                    for made in calls:
                        sums[name].add_gradients(made, gradients)
        for name, calls in recorder.calls.items():
            for made in calls:
                sums[name].add_operands(made)
    if not seen:
        raise InputError("inputs: got no batches (an iterator that was used up?), expected at least one")
    return {name: total.sensitivity(probes) for name, total in sums.items()}


def measure_sensitivity(
    model: nn.Module,
    inputs: Iterable[Any],
    *,
    probes: int = 8,
    output: Output = first_tensor,
    seed: int = 0,
    progress: bool = True,
) -> Sensitivity:
    """Output sensitivity of the one adapted LSTM of a model; arguments as ``measure_sensitivities``.

    Raises:
        InputError: the model holds several adapted LSTMs, or what ``measure_sensitivities`` raises.
    """
    names = list(lstms_of(model))
    if len(names) > 1:
        raise InputError(
            f"the model holds {len(names)} LSTMs ({', '.join(names)}); use measure_sensitivities(...), which returns "
            "one entry for each"
        )
    measured = measure_sensitivities(model, inputs, probes=probes, output=output, seed=seed, progress=progress)
    return next(iter(measured.values()))
