"""``AdaptiveLSTM`` as a module: copied, saved, moved, trained, changed, and shared by threads."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import adaptive_lstm as al

from ..support.helpers import (
    adapted,
    always_native,
    assert_close,
    assert_equal,
    infer,
    infer_natively,
    signal,
    torch_lstm,
)

X = signal(20, 2, 6)


# --------------------------------------------------------------------------------------------------- an nn.Module


def saved(lstm: al.AdaptiveLSTM) -> Any:
    buffer = io.BytesIO()
    torch.save(lstm, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved], ids=["deepcopy", "pickle", "torch.save"]
)
def test_copies(clone: Callable[[al.AdaptiveLSTM], al.AdaptiveLSTM], used: bool) -> None:
    lstm = adapted(6, 9, 2, policy=al.Delta.uniform(0.05), quantize="int8")
    want = infer(lstm, X)
    if not used:
        lstm = adapted(6, 9, 2, policy=al.Delta.uniform(0.05), quantize="int8")
    copied = clone(lstm)
    assert isinstance(copied, al.AdaptiveLSTM)
    assert (copied.policy, copied.quantize) == (lstm.policy, lstm.quantize)
    assert copied.last_run is None
    assert_equal(infer(copied, X), want)
    with torch.no_grad():
        copied.get_parameter("weight_hh_l0").zero_()
    assert_equal(infer(lstm, X), want)


def test_it_is_an_lstm() -> None:
    lstm = torch_lstm(6, 9, 2, bidirectional=True, proj_size=4)
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    assert isinstance(fast, nn.LSTM)
    assert list(fast.state_dict()) == list(lstm.state_dict())
    assert fast.weight_hh_l0 is not lstm.weight_hh_l0
    assert [n for n, _ in fast.named_parameters()] == [n for n, _ in lstm.named_parameters()]
    other = al.AdaptiveLSTM(6, 9, num_layers=2, bidirectional=True, proj_size=4).eval()
    assert not other.load_state_dict(lstm.state_dict()).missing_keys
    assert_equal(infer_natively(other, X), infer_natively(fast, X))
    back = nn.LSTM(6, 9, num_layers=2, bidirectional=True, proj_size=4)
    assert not back.load_state_dict(fast.state_dict()).unexpected_keys


def test_settings_are_shown() -> None:
    assert "policy" not in repr(adapted(6, 9))
    assert "policy=Delta, quantize=int8" in repr(adapted(6, 9, policy=al.Delta.uniform(0.1), quantize="int8"))


def test_moved_to_float64_and_back() -> None:
    fast, lstm = adapted(6, 9, 2), torch_lstm(6, 9, 2)
    infer_natively(fast, X)
    assert_equal(infer(fast.to(torch.float64), X.double()), infer(lstm.double(), X.double()))
    assert_close(infer_natively(fast.float(), X), infer(lstm.float(), X), "fp32")


# ------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_are_those_of_torch(training: bool) -> None:
    lstm, fast = torch_lstm(6, 9, 2).train(training), adapted(6, 9, 2).train(training)
    inputs = [X.clone().requires_grad_() for _ in range(2)]
    for module, x in zip((lstm, fast), inputs, strict=True):
        output, (h, c) = module(x)
        (output.sin().sum() + h.sum() + (c**2).sum()).backward()
    assert_equal([inputs[1].grad], [inputs[0].grad])
    for got, want in zip(fast.parameters(), lstm.parameters(), strict=True):
        assert_equal([got.grad], [want.grad])
    assert fast.last_run is not None
    assert fast.last_run.route.by == "torch"
    assert fast.last_run.route.reason.startswith("training" if training else "gradients")


def test_gradients_flow_to_the_given_state_alone() -> None:
    fast = adapted(6, 9).requires_grad_(False)
    h, c = torch.zeros(1, 2, 9, requires_grad=True), torch.zeros(1, 2, 9)
    fast(X, (h, c))[0].sum().backward()
    assert h.grad is not None
    assert h.grad.abs().sum() > 0


def test_training_then_inference() -> None:
    lstm, fast = torch_lstm(6, 9, 2), adapted(6, 9, 2)
    infer_natively(fast, X)
    for module in (lstm, fast):
        optimizer = torch.optim.SGD(module.train().parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            module(X)[0].pow(2).sum().backward()
            optimizer.step()
        module.get_parameter("bias_ih_l0").data.add_(1.0)
        module.eval()
    assert_close(infer_natively(fast, X), infer(lstm, X), "fp32")


# ------------------------------------------------------------------------------------------------ changed weights


def scale_in_place(lstm: nn.LSTM) -> None:
    with torch.no_grad():
        lstm.get_parameter("weight_hh_l1").mul_(2.0)


def load(lstm: nn.LSTM) -> None:
    lstm.load_state_dict(torch_lstm(6, 9, 2, seed=1).state_dict())


def load_by_assignment(lstm: nn.LSTM) -> None:
    lstm.load_state_dict(torch_lstm(6, 9, 2, seed=1).state_dict(), assign=True)


def replace(lstm: nn.LSTM) -> None:
    lstm.bias_hh_l0 = nn.Parameter(lstm.get_parameter("bias_hh_l0").detach() + 1.0)


def weight_pruning(lstm: nn.LSTM) -> None:
    prune.ln_structured(lstm, "weight_hh_l0", amount=0.5, n=2, dim=1)


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("change", [scale_in_place, load, load_by_assignment, replace, weight_pruning])
def test_changed_weights_are_noticed(change: Callable[[nn.LSTM], None], quantize: str) -> None:
    fast, lstm = adapted(6, 9, 2, quantize=quantize), torch_lstm(6, 9, 2)
    before = infer_natively(fast, X)[0]
    for module in (fast, lstm):
        change(module)
    after = infer_natively(fast, X)[0]
    assert (after - before).abs().max() > 0.01
    assert_close(after, infer(lstm, X)[0], quantize)


@pytest.mark.parametrize("kind", ["weight", "bias"])
@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_weights_replaced_at_the_same_address(quantize: str, kind: str) -> None:
    fast = adapted(6, 64, quantize=quantize)
    names = [name for name in fast.state_dict() if name.startswith(kind)]
    for _ in range(100):
        infer_natively(fast, X)
        for _ in range(2):  # the second one often gets the memory that the plan was made from
            for name in names:
                shape = getattr(fast, name).shape
                setattr(fast, name, None)
                setattr(fast, name, nn.Parameter(torch.randn(shape) / 8))
        fresh = al.AdaptiveLSTM.from_lstm(fast)
        assert_equal(infer_natively(fast, X), infer_natively(fresh, X))


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_weights_swapped_for_one_call(quantize: str) -> None:
    fast = adapted(6, 9, 2, quantize=quantize)
    before, other = infer_natively(fast, X), torch_lstm(6, 9, 2, seed=1)
    with torch.no_grad(), always_native():
        swapped = torch.func.functional_call(fast, other.state_dict(), (X,))
    assert_close(swapped, infer(other, X), quantize)
    assert_equal(infer_natively(fast, X), before)


@pytest.mark.parametrize("ran", [True, False], ids=["used", "new"])
def test_a_pruned_lstm_is_adapted(ran: bool) -> None:
    lstm = torch_lstm(6, 9, 2)
    prune.l1_unstructured(lstm, "weight_hh_l0", amount=0.5)
    if ran:
        infer(lstm, X)  # recomputes the pruned weight without a graph
    fast = al.adapt(lstm)
    assert isinstance(fast, al.AdaptiveLSTM)
    assert_close(infer_natively(fast, X), infer(lstm, X), "fp32")
    prune.remove(fast, "weight_hh_l0")
    assert_close(infer_natively(fast, X), infer(lstm, X), "fp32")
