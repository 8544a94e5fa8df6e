"""The calibration pass: runs a model over inputs and measures how strongly its output feels every LSTM gate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from tqdm import tqdm

from . import reference
from .errors import InputError, NonFiniteError
from .policies import Dense
from .runtime import AdaptiveLSTM
from .sensitivity import Sensitivity
from .weights import shape_of, tensors_of

Output = Callable[[Any], torch.Tensor]


class _Probe:
    """Stands in for the executor of an LSTM that is measured: the dense reference run, keeping every gate tensor."""

    def __init__(self, lstm: AdaptiveLSTM):
        self.shape = shape_of(lstm)
        self.tensors = tensors_of(lstm)
        self.gates: list[list[torch.Tensor]] = [[] for _ in range(self.shape.pairs)]

    def run(
        self,
        x: torch.Tensor,
        sizes: torch.Tensor | None,
        batch_first: bool,
        initial: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """As ``Executor.run``."""
        shape = self.shape
        rows, alive = reference.packed_rows(x, sizes, batch_first)
        if not rows.requires_grad:  # so that the gates belong to a graph even if all parameters are frozen
            rows = rows.detach().requires_grad_()
        if initial is None:
            zeros = rows.new_zeros(shape.pairs, alive[0], shape.hidden_size)
            initial = zeros[..., : shape.output_size], zeros
        begin = reference.start(shape, *initial)
        y, end, _ = reference.run(self.tensors, shape, Dense(), rows, alive, begin, self._observe)
        return reference.unpacked_rows(y, x, batch_first), end.h, end.c, None

    finite_only = False

    def why_not_native(self) -> str:
        """Shown in ``last_run``."""
        return "reference: sensitivity is being measured"

    def _observe(self, step: reference.Step) -> None:
        self.gates[step.pair].append(step.gates)


def _forward_probed(lstm: AdaptiveLSTM, probe: _Probe, x: Any, hx: Any = None) -> Any:
    return lstm._forward_adaptive(probe, x, hx)


@contextmanager
def _probed(lstms: Mapping[str, AdaptiveLSTM]) -> Iterator[dict[str, _Probe]]:
    """The LSTMs run on probes inside the block."""
    probes = {name: _Probe(lstm) for name, lstm in lstms.items()}
    try:
        for name, lstm in lstms.items():
            lstm.forward = functools.partial(_forward_probed, lstm, probes[name])  # type: ignore[method-assign]
        yield probes
    finally:
        for lstm in lstms.values():
            lstm.__dict__.pop("forward", None)


def _first_tensor(output: Any) -> torch.Tensor:
    found = output
    while isinstance(found, tuple | list) and len(found):
        found = found[0]
    if not (isinstance(found, torch.Tensor) and found.is_floating_point()):
        raise InputError(
            f"the model returned {type(output).__name__}, and its first element is no float tensor; say which output "
            "counts, for example output=lambda out: out['logits']"
        )
    return found


def as_batches(inputs: Iterable[Any]) -> Iterable[Any]:
    """One tensor or ``PackedSequence`` alone is one batch."""
    return [inputs] if isinstance(inputs, torch.Tensor | PackedSequence) else inputs


def call_model(model: nn.Module, item: Any) -> Any:
    """Run a model on one batch; a tuple or list is its arguments."""
    if isinstance(item, tuple | list) and not isinstance(item, PackedSequence):
        return model(*item)
    return model(item)


def measure_sensitivities(
    model: nn.Module,
    inputs: Iterable[Any],
    *,
    probes: int = 8,
    output: Output = _first_tensor,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Sensitivity]:
    """Output sensitivity of every adapted LSTM of a model, by module name.

    Args:
        model: an adapted model (``adapt``) in eval mode; any layers around the LSTMs.
        inputs: batches, each as the model takes it: a tensor, a ``PackedSequence``, or a tuple of arguments. One tensor
            alone is one batch. Memory grows with one batch at a time: a few hundred sequences in batches of 16 to 64
            are plenty.
        probes: random projections of the output per batch.
        output: picks the tensor that counts from what the model returns; default: the first one.
        seed: of the projections.
        progress: show a bar.

    Raises:
        InputError: no adapted LSTM, no inputs, training mode, or an output that depends on no LSTM.
        NonFiniteError: the model's output holds NaN or infinity.
    """
    lstms = {name: m for name, m in model.named_modules() if isinstance(m, AdaptiveLSTM)}
    if not lstms:
        raise InputError("the model holds no AdaptiveLSTM; convert it first: fast = adaptive_lstm.adapt(model)")
    if any(lstm.training for lstm in lstms.values()):
        raise InputError("the model is in training mode; call .eval() on it first")
    if probes < 1:
        raise InputError(f"probes: got {probes}, expected at least 1")
    sums = {name: [np.zeros(4 * m.hidden_size) for _ in range(shape_of(m).pairs)] for name, m in lstms.items()}
    steps = dict.fromkeys(lstms, 0)
    seen = 0
    for item in tqdm(as_batches(inputs), desc="sensitivity", unit="batch", disable=not progress):
        seen += 1
        generator = torch.Generator().manual_seed(seed + seen)
        with torch.enable_grad(), _probed(lstms) as running:
            out = output(call_model(model, item))
            if not bool(torch.isfinite(out).all()):
                raise NonFiniteError(f"the model's output for batch {seen} holds NaN or infinity; clean the inputs")
            gates = [g for probe in running.values() for pair in probe.gates for g in pair]
            if not (gates and out.requires_grad):
                raise InputError(
                    "the output that counts does not depend on any LSTM; pass output=... to pick one that does"
                )
            for probe_index in range(probes):
                v = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
                keep = probe_index + 1 < probes
                gradients = iter(torch.autograd.grad((out * v).sum(), gates, retain_graph=keep, allow_unused=True))
                for name, probe in running.items():
                    for pair, kept in enumerate(probe.gates):
                        for _ in kept:
                            g = next(gradients)
                            if g is not None:
                                sums[name][pair] += g.double().pow(2).sum(0).cpu().numpy()
            for name, probe in running.items():
                steps[name] += sum(len(g) for g in probe.gates[0])
    if not seen:
        raise InputError("inputs: got no batches (an iterator that was used up?), expected at least one")
    return {
        name: Sensitivity(
            shape=shape_of(lstm),
            rows=tuple(s / (max(steps[name], 1) * probes) for s in sums[name]),
            weights=tuple(
                (t.w_ih.detach().cpu().float().numpy().copy(), t.w_hh.detach().cpu().float().numpy().copy())
                for t in tensors_of(lstm)
            ),
        )
        for name, lstm in lstms.items()
    }


def measure_sensitivity(
    model: nn.Module,
    inputs: Iterable[Any],
    *,
    probes: int = 8,
    output: Output = _first_tensor,
    seed: int = 0,
    progress: bool = False,
) -> Sensitivity:
    """Output sensitivity of the one adapted LSTM of a model; arguments as ``measure_sensitivities``.

    Raises:
        InputError: the model holds several adapted LSTMs, or what ``measure_sensitivities`` raises.
    """
    names = [name for name, m in model.named_modules() if isinstance(m, AdaptiveLSTM)]
    if len(names) > 1:
        raise InputError(
            f"the model holds {len(names)} LSTMs ({', '.join(names)}); use measure_sensitivities(...), which returns "
            "one entry for each"
        )
    measured = measure_sensitivities(model, inputs, probes=probes, output=output, seed=seed, progress=progress)
    return next(iter(measured.values()))
