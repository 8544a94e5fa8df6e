"""A clock that only LSTM calls move on, so that a test decides how long a policy takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from adaptive_lstm import bench
from adaptive_lstm.policies import Parts, parts
from adaptive_lstm.runtime.lstm import AdaptiveLSTM
from adaptive_lstm.runtime.stream import Stream


class VirtualClock:
    """What ``bench`` reads in place of the real clock.

    Args:
        monkeypatch: puts it in place.
        seconds: of one call, or one step of a stream, with a policy.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Parts], float]):
        self.now, self.calls = 0, 0
        forward, step = AdaptiveLSTM.forward, Stream.step

        def spend(policy: Parts) -> None:
            self.now += round(seconds(policy) * 1e9)
            self.calls += 1

        def timed_forward(lstm: AdaptiveLSTM, *args: Any) -> Any:
            spend(parts(lstm.policy))
            return forward(lstm, *args)

        def timed_step(stream: Stream, x: torch.Tensor) -> torch.Tensor:
            spend(stream._executor.policy)
            return step(stream, x)

        monkeypatch.setattr(AdaptiveLSTM, "forward", timed_forward)
        monkeypatch.setattr(Stream, "step", timed_step)
        monkeypatch.setattr(bench, "perf_counter_ns", lambda: self.now)
