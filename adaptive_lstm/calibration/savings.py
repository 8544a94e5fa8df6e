"""What skipping saves on this machine: time of the whole model with the chosen policies against none, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .. import bench
from ..model_io import call
from ..policies import Dense
from .candidates import Settings
from .evaluation import copy_with

TIMING_ROUNDS = 15  # interleaved, of the chosen policies and of none


def relative_time(model: nn.Module, settings: Settings, inputs: Sequence[Any]) -> bench.Ratio:
    """Seconds of a model with these policies as a share of its seconds when nothing is skipped, over some inputs.

    Both are copies in the model's own precision, and take turns. The model itself is not touched.
    """
    contenders = {
        "chosen": _runs(copy_with(model, settings), inputs),
        "dense": _runs(copy_with(model, dict.fromkeys(settings, Dense())), inputs),
    }
    timings = bench.measure(contenders, repeats=TIMING_ROUNDS, warmup=1)
    return bench.ratio(timings["chosen"], timings["dense"])


def _runs(model: nn.Module, inputs: Sequence[Any]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            for item in inputs:
                call(model, item)

    return run
