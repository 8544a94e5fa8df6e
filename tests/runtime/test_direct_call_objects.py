"""What a direct call holds of Python: nothing that a call inside it could change, or the collector could not see."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import adaptive_lstm as al

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
