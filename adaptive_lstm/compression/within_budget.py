"""Automatic compression: the smallest model whose output changes by no more than a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..analysis.measure_sensitivity import Output, measure_sensitivities
from ..errors import InputError
from ..model_io import as_batches, call, first_tensor, keeps_memory
from ..policies import Dense
from ..progress import tracked
from ..runtime.adapt import adapted_lstms, keep_settings
from ..runtime.lstm import AdaptiveLSTM
from ..weights.layout import shape_of
from ..weights.precision import MAX_LEVELS, Quantize
from ..weights.replaced import ReplacedWeights
from .compensated_rounding import round_model
from .compress import compress, described, restore, with_scales
from .pruning import Prune, prune_model
from .pruning.prune_model import hold_out
from .pruning.search import FIRST_RIDGE, relative_error
from .report import CompressReport

Choice = tuple[Prune | None, list[Quantize]]  # how to prune, and the precisions to try then, bytes rising

SPARSITIES = (0.7, 0.5, 0.3)  # tried in int8
QUICK_GAMMA = 0.5  # without a search
SEARCH_IF_WITHIN = 1.5  # times the budget: the search for better settings takes minutes
MIN_RAW_SHARE = 0.1  # of the weights read raw features: below, int8 saves few bytes there and clips features
LEVELS_BYTE = 127  # levels of activations that fit a byte: as many bytes of weights, faster
LEVELS_FINE = MAX_LEVELS  # levels of h: as many bytes as the default, less change where h is small


@keeps_memory
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
    """Compress an adapted model in place as far as a budget for the change of its output allows.

    Tries combinations of pruning and precision from the smallest upwards, in the order that the manual describes on its
    page on compression, and keeps the first whose output changes little enough on held-out batches; if none does, the
    model stays exact. A choice by a few batches is no guarantee: ``calibrate`` gives one, also for a compressed model.

    Args:
        model: an adapted model in eval mode, or one ``AdaptiveLSTM``.
        inputs: batches as for ``compress``, at least four; every fourth is held out.
        change: largest root mean square change of the output, as a share of the root mean square deviation of the
            output from its mean per feature: 0.05 for example. Above 0.
        pattern: as for ``Prune``.
        quantize: the lowest precision to try; default: int8. Of int8, several levels of activations are tried, and
            several precisions of the raw input matrix unless ``raw`` is "fp32".
        output: picks the tensor whose change is measured from what the model returns; default: the first one.
        progress: show bars and an estimate of the time, where stderr is a terminal.

    Raises:
        InputError: no budget, fewer than four batches, or what ``compress`` refuses; nothing is changed then.
    """
    if not change > 0:
        raise InputError(f"change: got {change}, expected a number above 0, for example 0.05")
    batches = list(as_batches(inputs))
    if len(batches) < 4:
        raise InputError(f"inputs: got {len(batches)} batches, expected at least 4: one in four is held out")
    fit, held_out = hold_out(batches)
    quantize = quantize or Quantize("int8")
    lstms = adapted_lstms(model)
    with keep_settings(lstms.values()):
        for lstm in lstms.values():  # skipping must not blur the comparison
            lstm.policy = Dense()
        choices = candidates(pattern, quantize, wide=reads_much(lstms.values()))
        report = _within(model, fit, held_out, change, choices, output, progress)
        found = {name: lstm.plan for name, lstm in lstms.items()}
    for name, lstm in lstms.items():
        lstm.plan = replace(lstm.plan, replaced=found[name].replaced, quantize=found[name].quantize)
    return report


def _within(
    model: nn.Module,
    fit: list[Any],
    held_out: list[Any],
    change: float,
    choices: Sequence[Choice],
    output: Output,
    progress: bool,
) -> CompressReport:
    lstms = adapted_lstms(model)
    restore(model)
    dense = outputs(model, held_out, output)
    every = dict.fromkeys(precision for _, precisions in choices for precision in precisions)
    scaled = {precision: with_scales(model, lstms, fit, precision) for precision in every}
    sensitivities = measure_sensitivities(model, fit, output=output, progress=progress)  # once for all choices
    for prune, precisions in tracked(choices, "compressing", "choice", show=progress):
        for each in settings(prune):
            restore(model)
            pruned: Mapping[str, ReplacedWeights] = {}
            if each is not None:
                pruned = prune_model(model, fit, each, sensitivities=sensitivities, output=output, progress=progress)
            found = math.inf
            # Levels of activations do not change weights.
            rounded: dict[Quantize, Mapping[str, ReplacedWeights]] = {}
            for precision in precisions:
                grids = replace(precision, levels=0, input_levels=0)
                if grids not in rounded:
                    rounded[grids] = round_model(model, fit, scaled[precision], pruned)
                for name, lstm in lstms.items():
                    lstm.plan = replace(lstm.plan, replaced=rounded[grids].get(name), quantize=scaled[precision][name])
                found = min(found, relative_change(dense, outputs(model, held_out, output)))
                if found <= change:
                    return described(lstms, sensitivities)
            if found > SEARCH_IF_WITHIN * change:
                break
    return compress(model)


def settings(prune: Prune | None) -> Iterator[Prune | None]:
    """First a setting that takes seconds, then the search, which takes minutes."""
    if prune is None:
        yield None
    else:
        yield replace(prune, saliency="second-order", gamma=QUICK_GAMMA, compensate="refit", ridge=FIRST_RIDGE)
        yield prune


def candidates(pattern: str, quantize: Quantize, *, wide: bool) -> list[Choice]:
    """The choices of ``compress_within``, in order. wide: whether int8 is tried for the raw input matrix."""
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
    """Levels of the same size in bytes, fastest first. fine: with LEVELS_FINE, useless beside dynamic raw features."""
    return [_levels(quantize, LEVELS_BYTE), quantize, *([_levels(quantize, LEVELS_FINE)] if fine else [])]


def _levels(quantize: Quantize, most: int) -> Quantize:
    """With so many levels for h, unless it is weight-only int8."""
    return replace(quantize, levels=quantize.levels and most, input_levels=quantize.input_levels and most)


def reads_much(lstms: Iterable[AdaptiveLSTM]) -> bool:
    """Whether the first layers' input matrices hold at least MIN_RAW_SHARE of the weights."""
    shapes = [shape_of(lstm) for lstm in lstms]
    raw = sum(4 * s.hidden_size * s.input_size * s.directions for s in shapes)
    return raw >= MIN_RAW_SHARE * sum(s.step_macs(cell) for s in shapes for cell in range(s.num_cells))


@torch.no_grad()
def outputs(model: nn.Module, batches: Iterable[Any], output: Output = first_tensor) -> list[torch.Tensor]:
    """The model's output for every batch, in float64."""
    return [output(call(model, item)).double() for item in batches]


def relative_change(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> float:
    """Root mean square change of outputs, as a share of their deviation from their mean per feature."""
    return math.sqrt(relative_error(new, old))
