"""Splitting in time beside all else: files, other policies, streams, training; and settings that are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.errors import NonFiniteError, PolicyError, UnsupportedError
from adaptive_lstm.policies import Seam, StartStates
from adaptive_lstm.types import StackShape

from ..support.helpers import adapted, assert_equal, infer
from .test_split_time import H, I, noise, seams, start_states


def test_in_a_file(tmp_path: Path) -> None:
    lstm = adapted(I, H, 2)
    policy = al.SplitTime(chunk=8, warm_up=4, tolerance=(0.1, math.inf), start=start_states(lstm.stack_shape))
    lstm.policy, x = policy, noise(50, 1, I)
    want = infer(lstm, x)
    al.save(lstm, tmp_path / "model")
    loaded: Any = al.load(tmp_path / "model", adapted(I, H, 2))
    assert (loaded.policy.chunk, loaded.policy.warm_up, loaded.policy.tolerance) == (8, 4, (0.1, math.inf))
    assert_equal(infer(loaded, x), want)


class Halves:
    """A split policy of one's own: repeats every other seam."""

    chunk, warm_up = 8, 4

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    def begin(self, cell: int) -> None:
        return None

    def strain(self, cell: int, seam: Seam) -> torch.Tensor:
        return 2.0 * (torch.arange(len(seam.residual)) % 2)


def test_a_policy_of_ones_own() -> None:
    lstm = adapted(I, H)
    lstm.policy = Halves()
    infer(lstm, noise(44, 1, I))
    assert seams(lstm)[:2] == (4, 2)
    lstm.policy = type("Wrong", (Halves,), {"strain": lambda self, cell, seam: seam.h})()
    with pytest.raises(PolicyError, match=r"Wrong: got strains of shape \(4, 9\), expected \(4,\)"):
        infer(lstm, noise(44, 1, I))


def test_what_does_not_go_with_it() -> None:
    split, lstm = al.SplitTime(chunk=8), adapted(I, H, 2)
    for other, name in (
        (al.Delta.uniform(0.1), "Delta"),
        (al.SkipTimesteps(x_share=0.1), "SkipTimesteps"),
        (al.HoldLayers(x_share=0.1), "HoldLayers"),
        (al.ExitInTime(None, threshold=0.1), "ExitInTime"),
    ):
        with pytest.raises(UnsupportedError, match=f"SplitTime runs the parts of a sequence side by side, and {name}"):
            al.Combined(split, other)
    with pytest.raises(PolicyError, match="got 2 split policies"):
        al.Combined(split, al.SplitTime(chunk=9))
    lstm.policy = al.Combined(split, al.SkipTimesteps(x_share=0.0))  # which never holds
    infer(lstm, noise(60, 1, I))
    assert seams(lstm).number > 0
    lstm.policy = al.Combined(al.SplitTime(), al.Delta.uniform(0.1))


def test_streams_pools_c_code_and_deploy_refuse_it(tmp_path: Path) -> None:
    lstm = adapted(I, H, policy=al.SplitTime(chunk=8))
    for opened in (al.stream, al.StreamPool):
        with pytest.raises(UnsupportedError, match="SplitTime splits long sequences, and a stream"):
            opened(lstm)
    with pytest.raises(UnsupportedError, match="SplitTime splits whole sequences"):
        al.export_c(lstm, tmp_path / "c", name="vad")
    al.save(lstm, tmp_path / "model", weights=True)
    with pytest.raises(UnsupportedError, match="SplitTime needs torch, and deploy has none"):
        deploy.load(tmp_path / "model")
    lstm.policy = al.SplitTime()  # never splits
    al.stream(lstm).step(noise(1, I))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"chunk": 0}, "chunk: got 0, expected a whole number from 1"),
        ({"chunk": 2**30 + 1}, "chunk: got"),
        ({"chunk": 8.0}, "chunk: got 8.0"),
        ({"warm_up": 0}, "warm_up: got 0"),
        ({"warm_up": True}, "warm_up: got True"),
        ({"tolerance": -1.0}, "tolerance: got -1.0, expected a number >= 0"),
        ({"tolerance": math.nan}, "tolerance: got nan"),
        ({"tolerance": "much"}, "tolerance: got 'much'"),
        ({"tolerance": (0.1, None)}, "tolerance: got"),
        ({"start": "mean"}, "start: got str, expected StartStates"),
    ],
)
def test_impossible_settings(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        al.SplitTime(**settings_)


def test_settings_of_another_stack() -> None:
    lstm = adapted(I, H, 2)
    before = lstm.policy
    for policy, message in (
        (al.SplitTime(chunk=8, tolerance=(0.1,) * 3), "tolerance: got 3 values, expected 2"),
        (al.SplitTime(chunk=8, start=start_states(StackShape(I, H, 3))), "start: got vectors of"),
        (al.SplitTime(chunk=8, start=start_states(StackShape(I, 7, 2))), "start: got vectors of"),
    ):
        with pytest.raises(PolicyError, match=message):
            lstm.policy = policy
    assert lstm.policy is before
    with pytest.raises(PolicyError, match="expected a vector of finite numbers"):
        StartStates((np.array([math.nan], np.float32),), (np.zeros(1, np.float32),))
    with pytest.raises(PolicyError, match="got 1 vectors h and 2 vectors c"):
        StartStates((np.zeros(1, np.float32),), (np.zeros(1, np.float32),) * 2)


def test_not_finite() -> None:
    lstm, x = adapted(I, H, policy=al.SplitTime(chunk=8, warm_up=4)), noise(50, 1, I)
    x[30] = math.nan
    with pytest.raises(NonFiniteError):
        infer(lstm, x)


def test_gradients_and_training_are_torch_s() -> None:
    lstm, x = adapted(I, H, policy=al.SplitTime(chunk=8, warm_up=4)), noise(50, 1, I)
    want = nn.LSTM.forward(lstm, x)
    with pytest.warns(UserWarning, match="gradients needed"):
        assert_equal(lstm(x), want)
