"""Exact calls of other dtypes: the bits of ``nn.LSTM`` by a shorter way, which is left wherever that would differ."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import adaptive_lstm as al
from adaptive_lstm.runtime.exact_by_torch import exact_by_torch

from ..support.helpers import assert_equal, infer

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's own
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)


def pair(dtype: torch.dtype = torch.float64, **options: Any) -> tuple[al.AdaptiveLSTM, nn.LSTM]:
    plain = nn.LSTM(3, 5, 2, **options).to(dtype).eval()
    fast = al.AdaptiveLSTM.from_lstm(copy.deepcopy(plain)).eval()
    infer(fast, torch.zeros(1, 1, 3, dtype=dtype))
    return fast, plain


@contextmanager
def short(*, expected: bool) -> Iterator[None]:
    """Whether the calls inside took the short way."""
    taken = []

    def spy(*given: Any) -> Any:
        out = exact_by_torch(*given)
        taken.append(out is not None)
        return out

    with mock.patch("adaptive_lstm.runtime.lstm.exact_by_torch", spy):
        yield
    assert taken
    assert all(one is expected for one in taken)


@DTYPES
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True}, {"bidirectional": True}, {"proj_size": 2, "bidirectional": True}, {"bias": False}],
    ids=str,
)
def test_the_bits_of_torch(dtype: torch.dtype, options: dict[str, Any]) -> None:
    fast, plain = pair(dtype, **options)
    for x in (torch.randn(7, 2, 3), torch.randn(2, 7, 3).transpose(0, 1), torch.randn(1, 1, 3)):
        with short(expected=True):
            assert_equal(infer(fast, x.to(dtype)), infer(plain, x.to(dtype)))
        assert fast.last_run is not None
        assert str(fast.last_run.route.reason).startswith("dtype")
        assert fast.last_run.timesteps == x.shape[0] * x.shape[1]


def replaced(lstm: nn.LSTM) -> None:
    lstm.weight_hh_l1 = nn.Parameter(-lstm.get_parameter("weight_hh_l1").detach())


def written(lstm: nn.LSTM) -> None:
    lstm.get_parameter("weight_ih_l0").data.mul_(-1)


def loaded(lstm: nn.LSTM) -> None:
    lstm.load_state_dict({name: -value for name, value in lstm.state_dict().items()})


def pruned(lstm: nn.LSTM) -> None:
    prune.l1_unstructured(lstm, "weight_hh_l0", 0.5)


@pytest.mark.parametrize("change", [replaced, written, loaded, pruned])
def test_changed_weights(change: Callable[[nn.LSTM], None]) -> None:
    fast, plain = pair()
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    before = infer(fast, x)[0]
    for module in (fast, plain):
        change(module)
    for _ in range(2):
        assert_equal(infer(fast, x), infer(plain, x))
    assert not torch.equal(infer(fast, x)[0], before)


def test_another_dtype_of_the_weights() -> None:
    fast, plain = pair()
    for module in (fast, plain):
        module.float()
    for x in (torch.randn(4, 2, 3, dtype=torch.float64), torch.randn(4, 2, 2)):
        for module in (plain, fast):
            with pytest.raises((ValueError, RuntimeError)), torch.no_grad():
                module(x)
    assert_equal(infer(fast, torch.randn(4, 0, 3)), infer(plain, torch.randn(4, 0, 3)))


@pytest.mark.parametrize(
    "call",
    [
        lambda lstm, x: lstm(x, (torch.ones(2, 2, 5).double(), torch.ones(2, 2, 5).double())),
        lambda lstm, x: lstm(x[:, 0]),
        lambda lstm, x: lstm(nn.utils.rnn.pack_sequence([x[:, 0], x[:2, 1]])),
        lambda lstm, x: lstm(torch._efficientzerotensor(x.shape, dtype=x.dtype)),
    ],
    ids=["states", "unbatched", "packed", "zeros without memory"],
)
def test_other_calls(call: Callable[[nn.LSTM, torch.Tensor], Any]) -> None:
    fast, plain = pair()
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        assert_equal(call(fast, x), call(plain, x))


def test_gradients_and_training() -> None:
    fast, plain = pair()
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    with short(expected=False):
        fast(x)[0].sum().backward()
    plain(x)[0].sum().backward()
    assert_equal([p.grad for p in fast.parameters()], [p.grad for p in plain.parameters()])
    fast.train()
    with short(expected=False):
        infer(fast, x)


@pytest.mark.parametrize("change", [{"policy": al.Delta.uniform(0.1)}, {"quantize": al.Quantize("int8")}], ids=str)
def test_what_is_set_is_not_passed_over(change: dict[str, Any]) -> None:
    fast, plain = pair()
    for name, value in change.items():
        setattr(fast, name, value)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    with short(expected=False):
        for _ in range(3):
            assert not torch.equal(infer(fast, x)[0], infer(plain, x)[0])
