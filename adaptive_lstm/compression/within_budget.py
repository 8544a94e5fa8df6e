"""Prune and quantize for me: the smallest model whose output changes by no more than a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..analysis.measure_sensitivity import Output, measure_sensitivities
from ..errors import InputError
from ..model_io import as_batches, call, first_tensor
from ..policies import Dense
from ..progress import tracked
from ..runtime.adapt import adapted_lstms
from ..runtime.lstm import AdaptiveLSTM
from ..weights.layout import shape_of
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from .compress import compress, described, restore, with_scales
from .pruning import Prune, prune_model, round_model
from .pruning.prune_model import parted
from .pruning.search import RIDGE, relative_error
from .report import CompressReport

Choice = tuple[Prune | None, list[Quantize]]  # how to prune, and in which precisions then, bytes rising

SPARSITIES = (0.7, 0.5, 0.3)  # tried in int8; between them bytes differ by a fifth
GAMMA = 0.5  # best or near best on every model it was tried on
NEAR = 1.5  # times the budget: so far above it the search for better settings is worth its minutes
WIDE = 0.1  # of the weights read raw features: below, int8 saves them few bytes, and features beyond its range are cut
BYTE = 127  # levels of activations that fit a byte: no fewer bytes of weights, but up to twice the speed
FINE = 8191  # levels of h in int8: no more bytes than the default, and half the change where h is small


def compress_within(
    model: nn.Module,
    inputs: Iterable[Any],
    change: float,
    *,
    pattern: str = "unstructured",
    quantize: Quantize | None = None,
    output: Output = first_tensor,
    progress: bool = True,
) -> CompressReport:
    """Compress an adapted model as far as a budget allows, in place, and say what was done.

    Tried in this order, from a tenth to half of the bytes of float32: pruned by 70, 50 and 30 % and quantized,
    quantized alone, pruned by half in bfloat16 (28 %, for weights that int8 is too coarse for), bfloat16. In each of
    them, where the matrix that reads raw features is a tenth of the weights or more, int8 for it too
    (``Quantize(raw="int8")``), with static and then with dynamic ranges of the features, comes before bfloat16 for it;
    and of the same bytes the faster before the more exact: 127 levels of h, which fit a byte, then 1016, and for int8
    alone 8191. int8 weights are rounded so that columns make up for each other's errors (``compress`` with
    ``rounding="compensated"``). The first whose output changes little enough on batches that nothing was fitted on
    stays; if none does, the model stays exact. Pruning is tried with settings that are near best on most models; where
    those change the output a little too much, the search of ``Prune`` follows. This is a choice by a few batches, no
    guarantee: ``calibrate`` gives one, also for a compressed model.

    Args:
        model: an adapted model in eval mode, or one ``AdaptiveLSTM``.
        inputs: batches as for ``compress``, at least four; every fourth judges.
        change: largest root mean square change of the output, as a share of the root mean square deviation of the
            output from its mean per feature: 0.05 for example. Above 0.
        pattern: as for ``Prune``.
        quantize: the lower precision; int8 by default, whose levels, and whose raw matrix unless it is to stay in
            float32, are then tried as said above.
        output: picks the tensor that counts from what the model returns; default: the first one.
        progress: show bars and an estimate of the time, where stderr is a terminal.

    Raises:
        InputError: no budget, fewer than four batches, or what ``compress`` refuses; nothing is changed then.
    """
    if not change > 0:
        raise InputError(f"change: got {change}, expected a number above 0, for example 0.05")
    batches = list(as_batches(inputs))
    if len(batches) < 4:
        raise InputError(f"inputs: got {len(batches)} batches, expected at least 4: some fit, others judge")
    fit, judges = parted(batches)
    quantize = quantize or Quantize("int8")
    lstms = adapted_lstms(model)
    kept = {name: (m.replaced, m.quantize) for name, m in lstms.items()}
    policies = {name: (m.policy, m.monitor) for name, m in lstms.items()}
    try:
        for lstm in lstms.values():  # what is skipped is another question
            lstm.policy = Dense()
        choices = candidates(pattern, quantize, wide=reads_much(lstms.values()))
        return _within(model, fit, judges, change, choices, output, progress)
    except BaseException:
        for name, lstm in lstms.items():
            lstm.replaced, lstm.quantize = kept[name]
        raise
    finally:
        for name, lstm in lstms.items():
            lstm.policy, lstm.monitor = policies[name]


def _within(
    model: nn.Module,
    fit: list[Any],
    judges: list[Any],
    change: float,
    choices: Sequence[Choice],
    output: Output,
    progress: bool,
) -> CompressReport:
    lstms = adapted_lstms(model)
    restore(model)
    dense = outputs(model, judges, output)
    asked = dict.fromkeys(precision for _, precisions in choices for precision in precisions)
    scaled = {precision: with_scales(model, lstms, fit, precision) for precision in asked}
    sensitivities = measure_sensitivities(model, fit, output=output, progress=progress)  # once for all that is tried
    for prune, precisions in tracked(choices, "compressing", "choice", show=progress):
        for each in settings(prune):
            restore(model)
            pruned: Mapping[str, ReplacedWeights] = {}
            if each is not None:
                pruned = prune_model(model, fit, each, sensitivities=sensitivities, output=output, progress=progress)
            found = math.inf
            rounded: dict[
                Quantize, Mapping[str, ReplacedWeights]
            ] = {}  # levels of activations leave weights as they are
            for precision in precisions:
                grids = replace(precision, levels=0, input_levels=0)
                if grids not in rounded:
                    rounded[grids] = round_model(model, fit, scaled[precision], pruned)
                for name, lstm in lstms.items():
                    lstm.replaced, lstm.quantize = rounded[grids].get(name), scaled[precision][name]
                found = min(found, relative_change(dense, outputs(model, judges, output)))
                if found <= change:
                    return described(lstms, sensitivities)
            if found > NEAR * change:
                break
    return compress(model)


def settings(prune: Prune | None) -> Iterator[Prune | None]:
    """A setting that takes seconds, then the search, which takes minutes."""
    if prune is None:
        yield None
    else:
        yield replace(prune, saliency="second-order", gamma=GAMMA, compensate="refit", ridge=RIDGE)
        yield prune


def candidates(pattern: str, quantize: Quantize, *, wide: bool) -> list[Choice]:
    """What ``compress_within`` tries, in order. wide: whether the raw input matrix is worth being made smaller."""
    half = Prune(pattern)
    pruned = [half] if half.n_of_m else [Prune(pattern, share) for share in SPARSITIES]  # N:M says how much
    if quantize.precision != "int8":
        return [*((prune, [quantize]) for prune in pruned), (None, [quantize])]
    every = [quantize]
    if wide and quantize.raw == "bf16":
        dynamic = replace(quantize, raw="int8", raw_range="dynamic", raw_levels=None, raw_scale=None)
        every = [replace(quantize, raw="int8"), dynamic, quantize]
    fast = [level for one in every for level in _rising(one)]
    plain = [level for one in every for level in _rising(one, fine=one.raw != "int8" or one.raw_range == "static")]
    int8: list[Choice] = [*((prune, _once(fast)) for prune in pruned), (None, _once(plain))]
    return [*int8, (half, [Quantize("bf16")]), (None, [Quantize("bf16")])]


def _once(settings: Iterable[Quantize]) -> list[Quantize]:
    return list(dict.fromkeys(settings))


def _rising(quantize: Quantize, *, fine: bool = False) -> list[Quantize]:
    """The same bytes, the fastest first. fine: also finer levels of h, which gain little beside features in a byte."""
    return [_levels(quantize, BYTE), quantize, *([_levels(quantize, FINE)] if fine else [])]


def _levels(quantize: Quantize, most: int) -> Quantize:
    """With so many levels for h, unless it is weights only."""
    return replace(quantize, levels=quantize.levels and most, input_levels=quantize.input_levels and most)


def reads_much(lstms: Iterable[AdaptiveLSTM]) -> bool:
    """Whether the first layers' input matrices hold so much of the weights (``WIDE``) that int8 is worth its risk."""
    shapes = [shape_of(lstm) for lstm in lstms]
    raw = sum(4 * s.hidden_size * s.input_size * s.directions for s in shapes)
    return raw >= WIDE * sum(s.step_macs(cell) for s in shapes for cell in range(s.num_cells))


@torch.no_grad()
def outputs(model: nn.Module, batches: Iterable[Any], output: Output = first_tensor) -> list[torch.Tensor]:
    """What a model returns for every batch, in float64."""
    return [output(call(model, item)).double() for item in batches]


def relative_change(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> float:
    """Root mean square change of ``outputs``, as a share of their deviation from their mean per feature."""
    return math.sqrt(relative_error(new, old))
