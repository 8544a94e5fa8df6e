"""Automatic compression: the smallest model whose output changes by no more than a budget."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..analysis.measure_sensitivity import Output
from ..codec import brief, is_number
from ..errors import InputError
from ..model_io import as_batches, call, check_repeatable, first_tensor, require_function, runs_model
from ..policies import Dense
from ..progress import Deadline, OutOfTimeError, Progress, time_limit
from ..runtime.adapt import adapted_lstms, keep_settings
from ..runtime.lstm import AdaptiveLSTM
from ..weights.layout import shape_of
from ..weights.precision import MAX_LEVELS, Quantize
from .budget_search import PROBES, BudgetSearch, Choice, spread
from .compress import described
from .pruning import Prune
from .pruning.prune_model import hold_out
from .report import CompressReport

SPARSITIES = (0.7, 0.5, 0.3)  # tried in int8
MIN_RAW_SHARE = 0.1  # of the weights read raw features: below, int8 saves few bytes there and clips features
LEVELS_BYTE = 127  # levels of activations that fit a byte: as many bytes of weights, faster
LEVELS_FINE = MAX_LEVELS  # levels of h: as many bytes as the default, less change where h is small

FIT_STEPS, HELD_STEPS = 2**14, 2**13  # timesteps times batch rows that are enough, whatever the model
SENSED_STEPS, SENSED = 2**12, 16  # the same for the sensitivity of the output, which runs step by step; and batches
REPEATED = 8  # batches that the model runs on twice, to see whether it repeats itself

# Rough costs for the estimate, as a 3 x 384 tagger took: passes over held-out batches, and products of matrices.
TRIALS = 12  # passes over held-out batches
BACKWARD = 10  # a pass for the sensitivity, as a multiple of one without gradients
PRODUCTS = 150  # of [4H, C] with [C, C]: moments excluded; rounding, refits
MOMENTS = 6  # second moments of all operands


@runs_model
def compress_within(
    model: nn.Module,
    inputs: Iterable[Any],
    change: float,
    *,
    pattern: str = "unstructured",
    quantize: Quantize | None = None,
    output: Output = first_tensor,
    seconds: float | None = None,
    progress: bool = True,
) -> CompressReport:
    """Compress an adapted model in place as far as a budget for the change of its output allows.

    Tries combinations of pruning and precision, the gentlest first, in the order that the manual describes on its page
    on compression, and keeps the smallest whose output changes little enough on held-out batches; if none does, the
    model stays exact. A choice by a few batches is no guarantee: ``calibrate`` gives one, also for a compressed model.

    Args:
        model: an adapted model in eval mode, or one ``AdaptiveLSTM``.
        inputs: batches as for ``compress``, at least four; every fourth is held out. About 16,384 timesteps to fit on
            and 8,192 held-out ones are enough, so of more batches some are used, evenly spread.
        change: largest root mean square change of the output, as a share of the root mean square deviation of the
            output from its mean per feature: 0.05 for example. Above 0.
        pattern: as for ``Prune``.
        quantize: the lowest precision to try; default: int8. Of int8, several levels of activations are tried, and
            several precisions of the raw input matrix unless ``raw`` is "fp32".
        output: picks the tensor whose change is measured from what the model returns; default: the first one.
        seconds: how long to search; then the best that was found is set, and the report says so. Default: until
            everything was tried that is worth it; for large models without the search of ``Prune`` for better settings,
            which the report says too.
        progress: show a bar and an estimate of the time, where stderr is a terminal.

    Raises:
        InputError: no budget, fewer than four batches, a model that gives another output for the same input each time,
            or what ``compress`` refuses; nothing is changed then.
    """
    if not (is_number(change) and change > 0):
        raise InputError(f"change: got {brief(change)}, expected a number above 0, for example 0.05")
    if not isinstance(quantize, Quantize | None):
        raise InputError(f"quantize: got {brief(quantize)}, expected adaptive_lstm.Quantize, or None for int8")
    require_function(output)
    deadline = Deadline(time_limit(seconds))
    batches = list(as_batches(inputs))
    if len(batches) < 4:
        raise InputError(f"inputs: got {len(batches)} batches, expected at least 4: one in four is held out")
    fit, held = hold_out(batches)
    quantize = quantize or Quantize("int8")
    lstms = adapted_lstms(model)
    remark = ""
    with keep_settings(lstms.values()):
        for lstm in lstms.values():  # skipping must not blur the comparison
            lstm.plan = replace(lstm.plan, policy=Dense(), replaced=None, quantize=Quantize(), expected_rates=None)
        choices = candidates(pattern, quantize, wide=reads_much(lstms.values()))
        steps = _timesteps(model, held[0])
        fit, held = spread(fit, max(3, FIT_STEPS // steps)), spread(held, max(2, HELD_STEPS // steps))
        sensed = min(SENSED, max(3, SENSED_STEPS // steps))
        with Progress("compressing", "step", show=progress, deadline=deadline) as bar:
            search = BudgetSearch(
                model, fit, held, change, output, deadline, bar, patient=seconds is not None, sensed=sensed
            )
            try:
                check_repeatable(model, deadline.over(batches[:REPEATED]), output)
                bar.expect(4 * len(choices), _estimate(model, fit, held, sensed) / (4 * len(choices)))
                search.run(choices)
            except OutOfTimeError:
                remark = f"the search stopped after seconds={seconds:g}: " + _found(search)
        search.apply(search.best)
        found = {name: lstm.plan for name, lstm in lstms.items()}
        if search.search_left_out:
            remark = "finer settings of pruning were not searched, which takes long at this size: seconds=... allows it"
    for name, lstm in lstms.items():
        lstm.plan = replace(lstm.plan, replaced=found[name].replaced, quantize=found[name].quantize)
    return replace(described(lstms, search.sensitivities), remark=remark)


def _found(search: BudgetSearch) -> str:
    if search.best is None:
        return "nothing within the budget was found by then, so the model stays exact"
    return f"{search.best.words} keeps the budget; what may be smaller was not tried to the end"


@torch.no_grad()
def _timesteps(model: nn.Module, item: Any) -> int:
    """Timesteps times batch rows of the longest call of an LSTM, at least 1."""
    call(model, item)
    return max([1, *(run.timesteps for lstm in adapted_lstms(model).values() if (run := lstm.last_run))])


@torch.no_grad()
def _estimate(model: nn.Module, fit: Sequence[Any], held: Sequence[Any], sensed: int) -> float:
    """About how many seconds the search takes at most, from one run of the model and one product of matrices."""
    lstms = adapted_lstms(model)
    rows = len(fit) * _timesteps(model, held[0])  # which packs the weights
    begun = time.perf_counter()
    call(model, held[0])
    run = time.perf_counter() - begun
    shapes = [(shape_of(lstm), cell) for lstm in lstms.values() for cell in range(lstm.stack_shape.num_cells)]
    square = torch.ones(512, 512, dtype=torch.float64, device="cpu")
    begun = time.perf_counter()
    square @ square
    per_product = (time.perf_counter() - begun) / 512**3
    products = 0.0
    for shape, cell in shapes:
        columns = shape.input_width(cell) + shape.output_size
        products += (PRODUCTS * 4 * shape.hidden_size + MOMENTS * rows) * columns**2
    runs = len(fit) + TRIALS * len(held) + BACKWARD * min(sensed, len(fit)) * PROBES
    return runs * run + products * per_product


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
