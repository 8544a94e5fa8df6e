"""Tolerances, builders and comparisons that several test files share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import adaptive_lstm as al
from adaptive_lstm.cli import main as cli
from adaptive_lstm.execution.backend import native
from adaptive_lstm.execution.torch_choice import SpeedTrial
from adaptive_lstm.policies import ColumnPolicy
from adaptive_lstm.types import StackShape
from adaptive_lstm.weights.layout import CellTensors

# Largest difference of outputs and states, relative where a value exceeds 1 (cell states have no bound).
# fp32 and fp64: against nn.LSTM. bf16 and int8: native against the reference executor on the same weights; in int8 an
# activation between two levels may fall to either side, because the two round their gates differently.
# skipping: two float runs under one policy that round differently; a column at the edge of its threshold may be sent by
# one only (test_delta.py compares the decisions themselves).
TOLERANCE = {"fp32": 1e-5, "fp64": 1e-12, "bf16": 1e-5, "int8": 5e-3, "skipping": 2e-2}
PRECISIONS = ("fp32", "bf16", "int8")

# Two executors may decide differently about a column this close to its threshold: their values differ by rounding.
NEAR_THRESHOLD = 1e-6
# The same for the edge between two int8 levels, in units of one level.
NEAR_LEVEL = 5e-3
# Share of the steps in which they may do so.
RARE = 0.02


native_only = pytest.mark.skipif(not native(), reason="the native extension does not serve")


class OnReference:
    """Another policy, as a user would write it in Python: it runs on the reference executor."""

    def __init__(self, policy: ColumnPolicy):
        self.policy = policy

    def check(self, shape: StackShape) -> None:
        self.policy.check(shape)

    def thresholded(self, site: al.Site) -> bool:
        return self.policy.thresholded(site)

    def send(self, site: al.Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        return self.policy.send(site, value, sent)


def torch_lstm(input_size: int, hidden_size: int, num_layers: int = 1, *, seed: int = 0, **options: Any) -> nn.LSTM:
    """An ``nn.LSTM`` in eval mode with weights from a seed, drawn as torch draws them."""
    lstm = nn.LSTM(input_size, hidden_size, num_layers, **options).eval()
    generator, bound = torch.Generator().manual_seed(seed), hidden_size**-0.5
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return lstm


def adapted(
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    policy: al.Policy | None = None,
    quantize: str = "fp32",
    **options: Any,
) -> al.AdaptiveLSTM:
    """The same as an ``AdaptiveLSTM``."""
    fast = al.AdaptiveLSTM.from_lstm(torch_lstm(input_size, hidden_size, num_layers, **options))
    fast.quantize = al.Quantize(quantize)  # type: ignore[arg-type]
    fast.policy = policy or al.Dense()
    return fast


def signal(*shape: int, seed: int = 0, step: float = 0.1) -> torch.Tensor:
    """Inputs that move slowly along the first dimension, so that there is something to skip."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).mul(step).cumsum(0)


def expands() -> bool:
    """Whether the instruction set in use expands bitmasks fast, so that large matrices take the bitmask form."""
    return al.backend_info().isa in ("amx", "avx512vbmi2", "avx512vnni")


def always_native() -> mock._patch[Any]:
    """Inside, torch's own path is never taken for being faster."""
    return mock.patch.object(SpeedTrial, "contest", return_value=None)


@torch.no_grad()
def infer(model: Callable[..., Any], *args: Any) -> Any:
    """The output of a model, without gradients."""
    return model(*args)


@torch.no_grad()
def infer_natively(lstm: al.AdaptiveLSTM, *args: Any) -> Any:
    """``output, (h_n, c_n)`` without gradients; the native core must have run it."""
    with always_native():
        out = lstm(*args)
    assert lstm.last_run is not None
    assert lstm.last_run.route.by == "native"
    return out


def flat(value: Any) -> list[torch.Tensor]:
    """All tensors of an output."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [t for t in value if t is not None]
    if isinstance(value, al.StreamState):
        return [value.h, value.c, *(t for t in (*value.sent_x, *value.sent_h) if t is not None)]
    return [t for part in value for t in flat(part)]


def assert_close(got: Any, want: Any, precision: str) -> None:
    """Every tensor has the same shape and dtype, and values within the tolerance."""
    a, b = flat(got), flat(want)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape
        scale = y.abs().clamp(min=1)
        torch.testing.assert_close(x / scale, y / scale, rtol=0.0, atol=TOLERANCE[precision])


def assert_equal(got: Any, want: Any) -> None:
    """Every tensor is the same bit for bit."""
    a, b = flat(got), flat(want)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0.0, atol=0.0)


def only_lstm(model: nn.Module) -> al.AdaptiveLSTM:
    """The one ``AdaptiveLSTM`` of a model."""
    (found,) = [m for m in model.modules() if isinstance(m, al.AdaptiveLSTM)]
    return found


def executed_weights(lstm: al.AdaptiveLSTM) -> Sequence[CellTensors]:
    """The weights that an ``AdaptiveLSTM`` runs with, cell by cell: those of its precision as floats."""
    return lstm.executor().tensors


def lively(lstm: al.AdaptiveLSTM) -> al.AdaptiveLSTM:
    """The same in float64, with states that move more than those of fresh weights."""
    lstm.double()
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.mul_(3)
    return lstm


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The last line of stderr after a bad call."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse exits this way
        code = stop.code if isinstance(stop.code, int) else 1
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("adaptive-lstm")
    assert "error: " in last
    return last


def fingerprints(inputs: torch.Tensor) -> set[str]:
    """A digest of every input of a batch: equal ones have the same."""
    return {hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in inputs}
