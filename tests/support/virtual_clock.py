"""A clock that only LSTM calls move on, so that a test decides how long a policy takes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adaptive_lstm import bench
from adaptive_lstm.calibration import evaluation
from adaptive_lstm.policies import Parts, parts
from adaptive_lstm.runtime import lstm
from adaptive_lstm.runtime.lstm import AdaptiveLSTM
from adaptive_lstm.runtime.stream import Stream


class VirtualClock:
    """What ``bench`` reads in place of the real clock.

    Args:
        monkeypatch: puts it in place.
        seconds: of one call, or one step of a stream, with a policy.
        in_search: the same while a search predicts times; by default what ``seconds`` says.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        seconds: Callable[[Parts], float],
        in_search: Callable[[Parts], float] | None = None,
    ):
        self.now = 0
        measure, timing = bench.measure, [False]
        forward, serve, step = AdaptiveLSTM.forward, AdaptiveLSTM._serve, Stream.step

        def spend(policy: Parts) -> None:
            which = seconds if timing[0] or in_search is None else in_search
            self.now += round(which(policy) * 1e9)

        def timed_measure(*args: Any, **options: Any) -> Any:
            timing[0] = True
            try:
                return measure(*args, **options)
            finally:
                timing[0] = False

        def own_forward(module: AdaptiveLSTM, *args: Any) -> Any:
            return forward(module, *args)

        def timed_serve(module: AdaptiveLSTM, *args: Any) -> Any:
            spend(parts(module.policy))
            return serve(module, *args)

        def timed_step(stream: Stream, x: torch.Tensor) -> torch.Tensor:
            spend(stream._executor.policy)
            return step(stream, x)

        monkeypatch.setattr(AdaptiveLSTM, "_serve", timed_serve)
        monkeypatch.setattr(AdaptiveLSTM, "forward", own_forward)  # another, so no direct call goes past _serve
        monkeypatch.setattr(Stream, "step", timed_step)
        monkeypatch.setattr(bench, "measure", timed_measure)
        monkeypatch.setattr(bench, "perf_counter_ns", lambda: self.now)
        for module in (lstm, evaluation):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now * 1e-9))
