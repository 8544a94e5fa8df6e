"""What a direct call holds of Python: nothing that a call inside it could change, or the collector could not see."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import _native
from adaptive_lstm.execution.fingerprint import Fingerprint

from ..support.helpers import adapted, assert_close, assert_equal, infer, signal, torch_lstm


def test_a_call_inside_a_call() -> None:
    """The garbage collector may run while a result is made, and with it code that calls the same LSTM."""
    fast, short, long = adapted(6, 9, 2), torch.randn(1, 1, 6), torch.randn(50, 7, 6)
    want, thresholds, inside = infer(fast, long), gc.get_threshold(), [False]

    def call(phase: str, info: dict[str, int]) -> None:
        if not inside[0]:
            inside[0] = True
            infer(fast, short)
            inside[0] = False

    gc.callbacks.append(call)
    try:
        gc.set_threshold(1, 1, 1)
        for _ in range(20):
            assert_equal(infer(fast, long), want)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(call)


@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.05)])
def test_a_module_that_its_parameters_know_is_freed(policy: al.Policy) -> None:
    fast = adapted(6, 9, policy=policy)
    vars(fast.weight_ih_l0)["of"] = fast
    for _ in range(2):
        infer(fast, signal(3, 1, 6))
    known = weakref.ref(fast)
    del fast
    gc.collect()
    assert known() is None


def test_a_truthy_batch_first_is_one() -> None:
    fast, lstm, x = adapted(6, 9, batch_first=True), torch_lstm(6, 9, batch_first=True), signal(2, 5, 6)
    infer(fast, x)
    fast.batch_first = 1  # type: ignore[assignment]
    assert_close(infer(fast, x), infer(lstm, x), "fp32")


def _idle(lstm: al.AdaptiveLSTM) -> list[Any]:
    native = lstm.executor().native
    assert native is not None
    states: list[Any] = native._idle
    return states


def test_a_state_of_another_plan_is_not_run() -> None:
    """Python shares the list of idle states, so that it may hold anything."""
    fast, other = adapted(6, 9), adapted(6, 130)
    x = signal(3, 2, 6)
    want = infer(fast, x)
    idle, wider = (_idle(lstm) for lstm in (fast, other))
    infer(other, x)
    kept = idle.copy()
    for held in (wider[0], 5, _native.State.__new__(_native.State)):
        idle[:] = [held]
        with torch.no_grad(), pytest.raises(ValueError, match="idle must hold states of the plan"):
            fast(x)
    idle[:] = kept
    assert_equal(infer(fast, x), want)


def test_weights_that_are_no_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fingerprint, "stored", lambda self, lstm: [("weight_ih_l0", object(), 0, -1)])
    with pytest.raises(ValueError, match="weights must be tensors"):
        infer(adapted(6, 9), signal(3, 2, 6))


def test_a_last_run_that_is_none_of_ours() -> None:
    fast, x = adapted(6, 9), signal(3, 2, 6)
    want = infer(fast, x)
    vars(fast)["_last"] = ()
    with torch.no_grad():
        assert fast._direct is not None
        found = fast._direct(fast, x)
    assert_equal(found, want)
