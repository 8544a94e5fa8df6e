"""Exits in time whose checks are made several at once, natively: as if each had been made when it was due."""

import pytest
import torch

from adaptive_lstm.execution import torch_state
from adaptive_lstm.policies import ExitInTime, Policy
from adaptive_lstm.types import StreamState

from ..support.native_oracle import run, stack, weights
from ..support.policy_cases import STACK, head, time_translators
from .test_native_policies import (
    PRECISIONS,
    assert_same_counts,
    assert_same_state,
    native_run,
    on_reference,
    read,
    signal,
)

LONG = 170  # timesteps: enough that several checks are made at once
NEVER = 1 - 1e-6  # a confidence that no head of random weights reaches, but that the core has to ask about


def at(time: int, **settings: object) -> ExitInTime:
    """All rows exit at the first check after ``time`` timesteps, and are asked at all before."""
    return ExitInTime(head(9), threshold=(NEVER, 0.0), starts=(0, time), **settings)  # type: ignore[arg-type]


def policies() -> dict[str, Policy]:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        buckets = time_translators(STACK)
        return {
            **{f"after {time}": at(time, check_every=3) for time in (1, 40, 50, 70, 100, 101, 102, 103, 150, 160)},
            "after 120, translated": at(120, check_every=2, translators=buckets),
            "after 120, patience": at(120, check_every=1, patience=5),
            "closed until 100": ExitInTime(head(9), threshold=(1.0, 0.4), starts=(0, 100), check_every=4),
            "closed in between": ExitInTime(
                head(9), threshold=(0.9, 1.0, 0.3), starts=(0, 30, 120), check_every=2, patience=2
            ),
            "closed": ExitInTime(head(9), threshold=1.0, check_every=3, translators=buckets),
            "never": ExitInTime(head(9), threshold=NEVER, check_every=1),
            "many rows of logits": ExitInTime(head(9, 40), threshold=0.2, measure="max", check_every=2),
            "settled": ExitInTime(None, threshold=0.02, check_every=2, window=3, patience=2, translators=buckets),
            "unsettled": ExitInTime(None, threshold=1e-9, check_every=3, translators=buckets),
        }


POLICIES = policies()


def zeros(batch: int) -> StreamState:
    return StreamState.start(torch.zeros(3, batch, 9), torch.zeros(3, batch, 9))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("lengths", [[LONG], [LONG, LONG, LONG], [LONG, 140, 90, 31]], ids=str)
def test_every_exit_is_where_it_was_due(policy: Policy, lengths: list[int]) -> None:
    torch.manual_seed(5)
    w_ih, w_hh, atol = PRECISIONS["fp32"]
    matrices, batch = weights(STACK, w_ih, w_hh), len(lengths)
    x = signal(LONG, batch, 5)
    sizes = [sum(length > t for length in lengths) for t in range(LONG)]
    rows = torch.cat([x[t, :n] for t, n in enumerate(sizes)])
    packed = sizes[-1] < batch
    native = stack(matrices, STACK, policy)
    for open_ended in (False, True):
        y, end, counts = native_run(
            native, rows if packed else x, sizes if packed else None, zeros(batch), open_ended=open_ended
        )
        want, state, counted = on_reference(matrices, STACK, policy, rows, sizes, zeros(batch), open_ended=open_ended)
        assert torch.allclose(y.reshape(want.shape), want, rtol=atol, atol=atol)
        assert_same_state(end, state, atol)
        assert_same_counts(counts, counted)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_whole_sequence_has_the_bits_of_its_steps(precision: str, policy: Policy) -> None:
    torch.manual_seed(6)
    w_ih, w_hh, _ = PRECISIONS[precision]
    native, x = stack(weights(STACK, w_ih, w_hh), STACK, policy), signal(LONG, 2, 5)
    whole, end, counts = native_run(native, x, None, zeros(2), open_ended=True)
    state, checks, exits = native.acquire(), counts.exit_checks, counts.exits
    native.write(state, torch_state.arrays(zeros(2)))
    steps = [run(native, step, state=state, open_ended=True).y for step in x.split(1)]  # nothing is ahead of a step
    after = native.counted(state, 2 * LONG)()
    assert torch.equal(torch.cat(steps), whole)
    assert_same_state(read(native, state), end, 0.0)
    assert (after.exit_checks, after.exits, after.columns) == (checks, exits, counts.columns)


def test_a_stream_in_chunks_equals_the_whole_sequence() -> None:
    torch.manual_seed(6)
    matrices, policy = weights(STACK, "int8", "int8"), at(110, check_every=3, translators=time_translators(STACK))
    native, x = stack(matrices, STACK, policy), signal(LONG, 2, 5)
    whole, end, counts = native_run(native, x, None, zeros(2), open_ended=True)
    parts, state = [], zeros(2)
    for chunk in x.split([1, 60, 7, 51, 51]):
        y, state, _ = native_run(native, chunk, None, state, open_ended=True)
        parts.append(y)
    assert counts.exits == 2
    assert torch.equal(torch.cat(parts), whole)
    assert_same_state(state, end, 0.0)
