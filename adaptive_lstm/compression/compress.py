"""Static post-training compression, applied once, in place, on an adapted model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..analysis.measure_sensitivity import Output, measure_sensitivities
from ..analysis.ranges import input_ranges
from ..analysis.sensitivity import Sensitivity
from ..bench import Ratio, measure, ratio
from ..codec import brief, is_one_of
from ..errors import InputError
from ..model_io import as_batches, copied, first_tensor, require_function, runs_model
from ..policies import Dense
from ..runtime.adapt import adapted_lstms, keep_settings, lstms_of
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.stream import stream
from ..weights.layout import float32, shape_of, tensors_of
from ..weights.precision import Quantize
from ..weights.quantization import column_scale, quantize_stack
from ..weights.replaced import ReplacedWeights
from .compensated_rounding import round_model
from .pruning import Prune, prune_model
from .report import CompressReport, LSTMReport, bytes_beside, matrix_reports

Rounding = Literal["nearest", "compensated"]
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "compensated")

TIMED, TIMED_SECONDS = 15, 0.002  # timing samples of either side, and their least length in seconds
STEPS = 32  # timesteps of noise that are timed


@runs_model
def compress(
    model: nn.Module,
    inputs: Iterable[Any] | None = None,
    *,
    prune: Prune | None = None,
    quantize: Quantize | None = None,
    rounding: Rounding = "nearest",
    output: Output = first_tensor,
    progress: bool = True,
) -> CompressReport:
    """Prune and quantize the LSTMs of an adapted model in place, without a gradient step.

    The parameters stay as they are, and the weights that replace them are kept beside them: compressing again with
    other settings starts from the parameters, and ``restore`` goes back to them. ``state_dict`` and the shapes of
    outputs and states stay too: the output of a pruned unit is a constant.

    Args:
        model: an adapted model in eval mode, or one ``AdaptiveLSTM``.
        inputs: batches, each as the model takes it: a tensor, a ``PackedSequence``, a tuple of arguments, or a dict
            of arguments by name. One tensor or dict alone is one batch. The model runs over them for pruning (a few
            hundred sequences in batches of 16 to 64 are plenty; about a quarter of them is held out to choose
            settings), for compensated rounding, and for the first layer's input matrix in int8 where ``quantize`` has a
            static range and no ``raw_scale``: every LSTM then gets its own, from the largest features seen. They should
            be typical of what the model will be given.
        prune: what to remove; None: nothing.
        quantize: the precision of every matrix; None: float32.
        rounding: of int8 weights: "nearest", or "compensated", which needs inputs: weights of other columns compensate
            for the rounding error of each (GPTQ, arXiv 2210.17323). On most models the output changes less; run time is
            the same. It takes seconds, ``save`` then stores the replaced weights in float32, and they stay replaced
            whatever ``quantize`` is set to later. Projections (``weight_hr``) are rounded to nearest.
        output: picks the tensor whose change is measured from what the model returns; default: the first one.
        progress: show bars and an estimate of the time, where stderr is a terminal.

    Raises:
        InputError: no adapted LSTM, training mode, or settings or inputs that do not fit; nothing is changed then.
        NonFiniteError: inputs, outputs or weights hold NaN or infinity.
    """
    lstms = adapted_lstms(model)
    quantize = _checked(prune, quantize, rounding)
    require_function(output)
    learns = [step for step, on in (("pruning", prune), ("compensated rounding", rounding != "nearest")) if on]
    if learns and inputs is None:
        raise InputError(f"{learns[0]} needs inputs to find out what matters: compress(model, inputs, ...)")
    batches = list(as_batches(inputs)) if learns and inputs is not None else inputs  # they are run over again
    pruned: dict[str, ReplacedWeights] = {}
    measured: Mapping[str, Sensitivity] = {}
    with keep_settings(lstms.values()):
        for lstm in lstms.values():
            lstm.plan = replace(lstm.plan, replaced=None, quantize=Quantize())
        chosen = with_scales(model, lstms, batches, quantize)
        if prune is not None and batches is not None:
            measured = measure_sensitivities(model, batches, output=output, progress=progress)
            pruned = prune_model(model, batches, prune, sensitivities=measured, output=output, progress=progress)
        if rounding == "compensated" and batches is not None:
            pruned = round_model(model, list(batches), chosen, pruned)
    for name, lstm in lstms.items():
        weights = pruned[name].cells if name in pruned else tensors_of(lstm)
        quantize_stack(weights, shape_of(lstm), chosen[name])  # raises before anything is changed
    for name, lstm in lstms.items():
        lstm.plan = replace(lstm.plan, replaced=pruned.get(name), quantize=chosen[name])
    return described(lstms, measured)


def report(model: nn.Module) -> CompressReport:
    """The ``CompressReport`` of an adapted model: the weights it executes now, compared with its parameters.

    Raises:
        InputError: no adapted LSTM.
    """
    return described(lstms_of(model), {})


def restore(model: nn.Module) -> None:
    """Undo ``compress`` on an adapted model: its LSTMs execute their parameters in float32 again.

    Policies stay, but a certificate for the compressed model does not cover the restored one.

    Raises:
        InputError: no adapted LSTM.
    """
    for lstm in lstms_of(model).values():
        lstm.plan = replace(lstm.plan, replaced=None, quantize=Quantize())


def _checked(prune: Prune | None, quantize: Quantize | None, rounding: str) -> Quantize:
    if not is_one_of(rounding, ROUNDINGS):
        raise InputError(f"rounding: got {brief(rounding)}, expected one of {', '.join(ROUNDINGS)}")
    if prune is not None and not isinstance(prune, Prune):
        raise InputError(
            f"prune: got {type(prune).__name__}, expected adaptive_lstm.Prune, for example Prune('unstructured', 0.5)"
        )
    if quantize is not None and not isinstance(quantize, Quantize):
        raise InputError(
            f"quantize: got {type(quantize).__name__}, expected adaptive_lstm.Quantize, for example Quantize('int8')"
        )
    return Quantize() if quantize is None else quantize


def described(lstms: Mapping[str, AdaptiveLSTM], sensitivities: Mapping[str, Sensitivity]) -> CompressReport:
    """The report of LSTMs by name; with the expected change of the output where a sensitivity is given."""
    return CompressReport(tuple(_report(name, lstm, sensitivities.get(name)) for name, lstm in lstms.items()))


def _report(name: str, lstm: AdaptiveLSTM, sensitivity: Sensitivity | None) -> LSTMReport:
    shape = shape_of(lstm)
    matrices = quantize_stack(lstm.executed(), shape, lstm.quantize)
    native = lstm.executor().native
    seconds, faster = (None, None) if native is None else _times(lstm)
    return LSTMReport(
        name=name,
        matrices=matrix_reports(
            name, shape, tensors_of(lstm), matrices, sensitivity, native.packed if native else None
        ),
        bytes_packed=None if native is None else native.nbytes,
        seconds=seconds,
        faster=faster,
        bytes_beside=bytes_beside(matrices),
    )


def _times(lstm: AdaptiveLSTM) -> tuple[tuple[float, float], Ratio]:
    """Median seconds of a timestep at batch 1 with nothing skipped: of the parameters, and of the present weights.

    And how many times as fast those are.
    """
    now, before = copied(lstm).eval(), copied(lstm).eval()
    restore(before)
    before.policy = now.policy = Dense()
    timings = measure({"before": _step(before), "now": _step(now)}, repeats=TIMED, warmup=2, min_time=TIMED_SECONDS)
    per_call = STEPS if lstm.bidirectional else 1
    seconds = (timings["before"].median / per_call, timings["now"].median / per_call)
    return seconds, ratio(timings["before"], timings["now"])


def _step(lstm: AdaptiveLSTM) -> Callable[[], object]:
    """A call that advances a stream by one step of noise; bidirectional stacks run a sequence of STEPS instead."""
    noise = torch.Generator("cpu").manual_seed(0)
    frames = torch.randn(STEPS, 1, lstm.input_size, generator=noise, dtype=torch.float32, device="cpu")
    frames = frames.to(next(lstm.parameters()).dtype)
    if lstm.bidirectional:
        x = frames.transpose(0, 1).contiguous() if lstm.batch_first else frames

        def call() -> None:
            with torch.no_grad():
                lstm(x)

        return call
    session, turn = stream(lstm, batch_size=1), itertools.cycle(frames.unbind(0))
    return lambda: session.step(next(turn))


def with_scales(
    model: nn.Module, lstms: Mapping[str, AdaptiveLSTM], inputs: Iterable[Any] | None, quantize: Quantize
) -> dict[str, Quantize]:
    """The settings of every LSTM, checked, with measured ``raw_scale`` where it is needed."""
    lacking = [name for name, lstm in lstms.items() if quantize.lacks_scale(shape_of(lstm))]
    chosen = dict.fromkeys(lstms, quantize)
    if inputs is not None and lacking:
        for lstm in lstms.values():
            quantize.check_names(shape_of(lstm))  # before a long run
        for name, largest in input_ranges(model, inputs, lacking).items():
            first = tensors_of(lstms[name])[: shape_of(lstms[name]).directions]
            scale = column_scale(largest, np.concatenate([float32(t.w_ih) for t in first]))
            chosen[name] = replace(quantize, raw_scale=tuple(scale.tolist()))
    for name, lstm in lstms.items():
        chosen[name].check(shape_of(lstm))
    return chosen
