"""Prune and quantize for me: the smallest model whose output changes by no more than a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from .compress import compress, restore
from .compress_report import CompressReport
from .errors import InputError
from .measure import Output
from .policies import Dense
from .pruning import Prune
from .pruning.choose import relative_error
from .quantize import Quantize
from .tap import adapted_lstms, as_batches, call, first_tensor

SPARSITIES = (0.7, 0.5, 0.3)  # tried in int8; between them bytes differ by a fifth
HELD_OUT = 0.25  # share of what is given, the last of it, that judges


def compress_within(
    model: nn.Module,
    inputs: Iterable[Any],
    change: float,
    *,
    pattern: str = "unstructured",
    quantize: Quantize | None = None,
    output: Output = first_tensor,
    progress: bool = False,
) -> CompressReport:
    """Compress an adapted model as far as a budget allows, in place, and say what was done.

    Tried, from the fewest bytes up: pruned by 70, 50 and 30 % and quantized, quantized alone, bfloat16. The first whose
    output changes little enough on batches that nothing was fitted on stays; if none does, the model stays exact. This
    is a choice by a few batches, no guarantee: ``calibrate`` gives one, also for a compressed model.

    Args:
        model: an adapted model in eval mode, or one ``AdaptiveLSTM``.
        inputs: batches as for ``compress``, at least four; the last quarter judges.
        change: largest root mean square change of the output, as a share of the root mean square deviation of the
            output from its mean per feature: 0.05 for example. Above 0.
        pattern: as for ``Prune``.
        quantize: the lower precision; int8 by default.
        output: picks the tensor that counts from what the model returns; default: the first one.
        progress: show bars.

    Raises:
        InputError: no budget, fewer than four batches, or what ``compress`` refuses; nothing is changed then.
    """
    if not change > 0:
        raise InputError(f"change: got {change}, expected a number above 0, for example 0.05")
    batches = list(as_batches(inputs))
    held = max(1, round(len(batches) * HELD_OUT))
    if len(batches) < 4:
        raise InputError(f"inputs: got {len(batches)} batches, expected at least 4: some fit, others judge")
    fit, judges = batches[:-held], batches[-held:]
    quantize = quantize or Quantize("int8")
    lstms = adapted_lstms(model)
    kept = {name: (m.pruned, m.quantize) for name, m in lstms.items()}
    policies = {name: (m.policy, m.monitor) for name, m in lstms.items()}
    try:
        for lstm in lstms.values():  # what is skipped is another question
            lstm.policy = Dense()
        return _within(model, fit, judges, change, _candidates(pattern, quantize), output, progress)
    except BaseException:
        for name, lstm in lstms.items():
            lstm.pruned, lstm.quantize = kept[name]
        raise
    finally:
        for name, lstm in lstms.items():
            lstm.policy, lstm.monitor = policies[name]


def _within(
    model: nn.Module,
    fit: list[Any],
    judges: list[Any],
    change: float,
    candidates: Iterable[tuple[Prune | None, Quantize]],
    output: Output,
    progress: bool,
) -> CompressReport:
    restore(model)
    dense = outputs(model, judges, output)
    for prune, precision in candidates:
        report = compress(model, fit, prune=prune, quantize=precision, output=output, progress=progress)
        if relative_change(dense, outputs(model, judges, output)) <= change:
            return report
    return compress(model)


def _candidates(pattern: str, quantize: Quantize) -> list[tuple[Prune | None, Quantize]]:
    pruned = dict.fromkeys(Prune(pattern, share) for share in SPARSITIES)  # N:M fixes the share: one candidate
    plain = dict.fromkeys([quantize, Quantize("bf16")])
    return [*((prune, quantize) for prune in pruned), *((None, precision) for precision in plain)]


@torch.no_grad()
def outputs(model: nn.Module, batches: Iterable[Any], output: Output = first_tensor) -> list[torch.Tensor]:
    """What a model returns for every batch, in float64."""
    return [output(call(model, item)).double() for item in batches]


def relative_change(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> float:
    """Root mean square change of ``outputs``, as a share of their deviation from their mean per feature."""
    return math.sqrt(relative_error(new, old))
