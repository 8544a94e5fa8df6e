"""What the docstrings of the functions that run a model promise: what they raise, and that nothing is changed then."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al

X = [torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(n)) for n in range(80)]


class Net(nn.Module):
    """Logits [1, 3], with dropout between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.drop, self.fc = nn.LSTM(4, 8, 2, batch_first=True), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.drop(self.lstm(x)[0][:, -1]))


CALLS: dict[str, Callable[[Any, list[Any]], object]] = {
    "calibrate": lambda m, xs: al.calibrate(
        m, xs, loss=al.losses.disagreement, max_loss=0.3, confidence=0.8, policies=[al.Delta]
    ),
    "compress": lambda m, xs: al.compress(m, xs[:4], prune=al.Prune("unit", 0.25), quantize=al.Quantize("int8")),
    "compress_within": lambda m, xs: al.compress_within(m, xs[:8], 0.5),
    "fit_translators": lambda m, xs: al.fit_translators(m, xs[:40]),
    "measure_sensitivities": lambda m, xs: al.measure_sensitivities(m, xs[:2]),
    "measure_sensitivity": lambda m, xs: al.measure_sensitivity(m, xs[:2]),
    "quantize": lambda m, xs: al.compress(m, quantize=al.Quantize("int8")),
}
READS = {name: call for name, call in CALLS.items() if name != "quantize"}


def adapted() -> Any:
    fast = al.adapt(Net().eval())
    fast.lstm.policy = al.Delta(h=0.5)
    return fast


def state_of(model: nn.Module) -> tuple[list[bool], list[Any]]:
    """Modes and settings."""
    lstms = [m for m in model.modules() if isinstance(m, al.AdaptiveLSTM)]
    return [m.training for m in model.modules()], [(m.plan, m.monitor, m.last_run) for m in lstms]


MODES: dict[str, Callable[[Any], object]] = {
    "model": lambda m: m.train(),
    "lstm": lambda m: m.lstm.train(),
    "around": lambda m: (m.train(), m.lstm.eval()),
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_training_mode_is_refused_and_kept(call: Any, mode: Any) -> None:
    fast = adapted()
    mode(fast)
    before = state_of(fast)
    with pytest.raises(al.errors.InputError, match="training mode"):
        call(fast, X)
    assert state_of(fast) == before


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_model_without_an_adapted_lstm(call: Any) -> None:
    for model in (Net().eval(), nn.Linear(4, 3).eval()):
        with pytest.raises(al.errors.InputError, match="adapt"):
            call(model, X)


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_no_inputs(call: Any) -> None:
    fast = adapted()
    before = state_of(fast)
    with pytest.raises(al.AdaptiveLSTMError, match=r"got (none|no|0) ?"):
        call(fast, [])
    assert state_of(fast) == before


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_inputs_that_are_not_finite(call: Any) -> None:
    fast = adapted()
    before = state_of(fast)
    with pytest.raises(al.errors.NonFiniteError):
        call(fast, [torch.where(x > 0, x, float("nan")) for x in X])
    assert state_of(fast) == before


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"compress", "compress_within", "quantize"}))
def test_what_only_measures_changes_nothing(name: str) -> None:
    fast = adapted()
    before, weights = state_of(fast), copy.deepcopy(fast.state_dict())
    CALLS[name](fast, X)
    assert state_of(fast) == before
    assert all(torch.equal(value, weights[key]) for key, value in fast.state_dict().items())
    assert al.report(fast).sparsity < 0.1
    assert state_of(fast) == before


@pytest.mark.parametrize("name", ["compress", "compress_within", "quantize"])
def test_compressing_keeps_policy_parameters_and_modes(name: str) -> None:
    fast = adapted()
    modes, weights = state_of(fast)[0], copy.deepcopy(fast.state_dict())
    CALLS[name](fast, X)
    assert state_of(fast)[0] == modes
    assert isinstance(fast.lstm.policy, al.Delta)
    assert all(torch.equal(value, weights[key]) for key, value in fast.state_dict().items())
    al.restore(fast)
    assert (fast.lstm.replaced, fast.lstm.quantize.exact) == (None, True)
