"""Weights that are computed anew for every call: pruning hooks, norms, parametrizations, weight dropout."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.nn.utils as norms
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import adaptive_lstm as al
from adaptive_lstm.execution.executor import Executor

from ..support.helpers import adapted, always_native, assert_close, assert_equal, infer, infer_natively, signal

X = signal(6, 2, 6)
NAMES = ("weight_hh_l0", "weight_ih_l1")
PRECISIONS = ["fp32", "int8"]
Change = Callable[[nn.LSTM], None]


def pruned(lstm: nn.LSTM) -> None:
    for name in NAMES:
        prune.l1_unstructured(lstm, name, 0.5)


def pruned_at_random(lstm: nn.LSTM) -> None:
    torch.manual_seed(3)
    prune.random_structured(lstm, NAMES[0], 0.3, dim=0)


def old_weight_norm(lstm: nn.LSTM) -> None:
    for name in NAMES:
        norms.weight_norm(lstm, name)


def old_spectral_norm(lstm: nn.LSTM) -> None:
    torch.manual_seed(3)
    for name in NAMES:
        norms.spectral_norm(lstm, name, n_power_iterations=20)
    lstm.train()(X)  # iterates; the norms would be far too small otherwise


def weight_norm(lstm: nn.LSTM) -> None:
    for name in NAMES:
        parametrizations.weight_norm(lstm, name)


def spectral_norm(lstm: nn.LSTM) -> None:
    torch.manual_seed(3)
    for name in NAMES:
        parametrizations.spectral_norm(lstm, name, n_power_iterations=20)


class Dropped(nn.Module):
    """Weight dropout that never stops."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(w, 0.5)


def dropped(lstm: nn.LSTM) -> None:
    for name in NAMES:
        parametrize.register_parametrization(lstm, name, Dropped())


def weight_drop(lstm: nn.LSTM) -> None:
    """As in AWD-LSTM: a hook puts the weights in place, dropped in training only."""
    for name in NAMES:
        raw = nn.Parameter(lstm._parameters.pop(name).detach())  # type: ignore[union-attr]
        lstm.register_parameter(f"{name}_raw", raw)
        setattr(lstm, name, raw.data)

    def put(module: nn.Module, args: object) -> None:
        for name in NAMES:
            raw = module.get_parameter(f"{name}_raw")
            setattr(module, name, nn.functional.dropout(raw, 0.5, module.training) * 1.0)

    lstm.register_forward_pre_hook(put)


DETERMINISTIC = [
    pruned, pruned_at_random, old_weight_norm, old_spectral_norm, weight_norm, spectral_norm, weight_drop
]  # fmt: skip


def changed(change: Change, quantize: str = "fp32") -> al.AdaptiveLSTM:
    fast = adapted(6, 9, 2)
    with torch.no_grad():
        change(fast)
    fast.quantize = al.Quantize(quantize)  # type: ignore[arg-type]
    return fast.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("quantize", PRECISIONS)
@pytest.mark.parametrize("change", DETERMINISTIC)
def test_the_same_weights_are_packed_once(change: Change, quantize: str) -> None:
    fast = changed(change, quantize)
    with mock.patch.object(Executor, "__init__", autospec=True, side_effect=Executor.__init__) as packs:
        first = infer_natively(fast, X)
        for _ in range(4):
            assert_equal(infer_natively(fast, X), first)
    assert packs.call_count == 1
    fast.replan()
    assert_equal(infer_natively(fast, X), first)
    if quantize == "fp32":
        assert_close(first, infer(lambda x: nn.LSTM.forward(fast, x), X), "fp32")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("change", [pruned, old_weight_norm, weight_norm, weight_drop])
def test_what_they_are_computed_from_may_change(change: Change) -> None:
    fast = changed(change)
    before = infer_natively(fast, X)[0]
    with torch.no_grad():
        for p in fast.parameters():
            p.mul_(1.5)
    after = infer_natively(fast, X)
    assert (after[0] - before).abs().max() > 0.01
    assert_close(after, infer(lambda x: nn.LSTM.forward(fast, x), X), "fp32")


def test_each_weight_is_read_once_a_call() -> None:
    fast, reads = adapted(6, 9, 2), []

    class Counted(nn.Module):
        def forward(self, w: torch.Tensor) -> torch.Tensor:
            reads.append(1)
            return w * 1.0

    parametrize.register_parametrization(fast, NAMES[0], Counted())
    infer_natively(fast, X)
    reads.clear()
    for _ in range(5):
        infer_natively(fast, X)
    assert len(reads) == 5


def test_weights_that_never_stay_are_left_to_torch() -> None:
    fast = changed(dropped)
    with torch.no_grad(), always_native():
        routes = []
        for _ in range(40):
            fast(X)
            assert fast.last_run is not None
            routes.append(fast.last_run.route.reason)
    assert sum(reason == "" for reason in routes) == 3
    assert "the weights change at every call" in routes[-1]
    for name in NAMES:  # they stay from now on
        parametrize.remove_parametrizations(fast, name)
    for _ in range(200):
        infer(fast, X)
    assert_close(infer_natively(fast, X), infer(lambda x: nn.LSTM.forward(fast, x), X), "fp32")


def test_weights_that_never_stay_are_packed_for_each_call_of_a_compressed_lstm() -> None:
    fast = changed(dropped, "int8")
    with pytest.warns(UserWarning, match="held other values at each of its last 3 calls") as told:
        outputs = [infer_natively(fast, X)[0] for _ in range(8)]
    assert len(told) == 1
    assert all((a - b).abs().max() > 0 for a, b in itertools.pairwise(outputs))


def test_steps_of_an_optimizer_between_calls() -> None:
    """In eval mode, as in adaptation at test time: torch serves until the weights rest."""
    fast = adapted(6, 9, 2)
    steps = torch.optim.SGD(fast.parameters(), lr=0.01)
    with always_native():
        for _ in range(8):
            fast(X)[0].pow(2).sum().backward()
            steps.step()
            got = infer(fast, X)
            assert_close(got, infer(lambda x: nn.LSTM.forward(fast, x), X), "fp32")
    infer(fast, X)
    infer_natively(fast, X)


def test_weights_of_a_promise_are_not_read_again() -> None:
    fast = changed(pruned)
    fast.plan = replace(fast.plan, weights_stay=True)
    before = infer_natively(fast, X)
    with torch.no_grad():
        fast.get_parameter("weight_hh_l0_orig").mul_(2.0)
    assert_equal(infer_natively(fast, X), before)
    fast.replan()
    assert (infer_natively(fast, X)[0] - before[0]).abs().max() > 1e-3
