"""Who steps by calls under a policy that skips over time is told of streams, once."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.runtime.short_calls import MANY_SHORT_CALLS

from ..support.helpers import adapted, infer, infer_natively, signal
from ..support.policy_cases import depth_translators, head

X = signal(200, 2, 6, step=0.01)


def stepped(lstm: al.AdaptiveLSTM, calls: int, steps: int = 1) -> None:
    shape = lstm.stack_shape
    state = torch.zeros(shape.num_cells, 2, 9), torch.zeros(shape.num_cells, 2, 9)
    for t in range(calls):
        _, state = infer(lstm, X[t : t + steps], state)


OVER_TIME = {
    "delta": al.Delta.uniform(0.1),
    "steps held": al.SkipTimesteps(x_share=0.2),
    "layers held": al.Combined(al.Delta.uniform(0.1), al.HoldLayers(x_share=0.2)),
    "exit in time": al.ExitInTime(head(9), threshold=0.9),
}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("policy", OVER_TIME.values(), ids=OVER_TIME)
def test_told_once(policy: al.Policy, steps: int) -> None:
    fast = adapted(6, 9, 2, policy=policy)
    stepped(fast, MANY_SHORT_CALLS - 1, steps)
    with pytest.warns(UserWarning, match="A stream remembers"):
        stepped(fast, 1, steps)
    stepped(fast, 2 * MANY_SHORT_CALLS)
    infer(fast, X, (torch.zeros(2, 2, 9), torch.zeros(2, 2, 9)))
    stepped(fast, 2 * MANY_SHORT_CALLS)
    with pytest.warns(UserWarning, match="A stream remembers"):  # another LSTM tells of itself
        stepped(copy.deepcopy(fast), MANY_SHORT_CALLS)


def test_nobody_else_is_told() -> None:
    depth = al.ExitInDepth(translators=depth_translators(adapted(6, 9, 2).stack_shape), head=head(9), threshold=0.9)
    both_ways = adapted(6, 9, 2, policy=al.Delta.uniform(0.1), bidirectional=True)
    quiet = [adapted(6, 9, 2, quantize="int8"), adapted(6, 9, 2, policy=depth), both_ways]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fast in quiet:
            stepped(fast, 2 * MANY_SHORT_CALLS)
        skipping = adapted(6, 9, 2, policy=al.Delta.uniform(0.1))
        for _ in range(3):  # a sequence now and then: no stepping
            stepped(skipping, MANY_SHORT_CALLS - 1)
            stepped(skipping, 1, steps=50)
        for t in range(2 * MANY_SHORT_CALLS):  # single timesteps that are sequences of their own
            infer(skipping, X[t : t + 1])


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_steps_by_calls_are_those_of_a_stream(quantize: str) -> None:
    fast, state = adapted(6, 9, 2, quantize=quantize), None
    with al.stream(fast, batch_size=2) as stream:
        for x in X[:20]:
            y, state = infer_natively(fast, x[None], *([] if state is None else [state]))
            assert torch.equal(y[0], stream.step(x))
        assert state is not None
        assert torch.equal(state[0], stream.state.h)
