"""Standing in for the runners of a model's LSTMs: how a pass over calibration inputs sees what they are given."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..execution.runner import Runner
from ..runtime.adapt import restored
from ..runtime.lstm import AdaptiveLSTM


@contextmanager
def standing_in(lstms: Mapping[str, AdaptiveLSTM], runners: Mapping[str, Runner]) -> Iterator[None]:
    """The LSTMs run on the given runners inside the block, whatever their policy and mode."""
    with restored(lstms):
        try:
            for name, runner in runners.items():
                lstm = lstms[name]
                lstm.forward = functools.partial(_forward, lstm, runner)  # type: ignore[method-assign]
            yield
        finally:
            for lstm in lstms.values():
                lstm.__dict__.pop("forward", None)


def _forward(lstm: AdaptiveLSTM, runner: Runner, x: Any, hx: Any = None) -> Any:
    return lstm._forward_adaptive(runner, x, hx)
