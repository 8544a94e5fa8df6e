"""Work done ahead of the frame: a stream that does it, and one that does not, differ in nothing that can be read."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import BusyError, NonFiniteError
from adaptive_lstm.policies import Policy
from adaptive_lstm.types import StackShape

from ..support.helpers import OnReference, assert_equal, infer_natively, signal, torch_lstm
from ..support.policy_cases import FAMILIES, head
from .test_stream_states import same

STREAMS = [case for case in FAMILIES if case.values[2]]
FORMATS: dict[str, al.Quantize] = {
    "fp32": al.Quantize("fp32"),
    "bf16": al.Quantize("bf16"),
    "int8": al.Quantize("int8"),
    "weights only": al.Quantize("int8", levels=0, input_levels=0),
}


def adapted(lstm: torch.nn.LSTM, quantize: al.Quantize | None = None, policy: Policy | None = None) -> al.AdaptiveLSTM:
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    if quantize is not None:
        fast.quantize = quantize
    if policy is not None:
        fast.policy = policy
    return fast


class Pair:
    """Two streams of one LSTM, one of which works ahead between any two calls."""

    def __init__(self, lstm: al.AdaptiveLSTM, batch: int, seed: int):
        self.eager, self.plain = al.stream(lstm, batch), al.stream(lstm, batch)
        self.choice = random.Random(seed)
        self.frames = signal(80, batch, lstm.input_size, seed=seed)
        self.kept: al.StreamState | None = None

    def both(self, what: str) -> None:
        """Do the same with both streams; their results are equal to the bit."""
        at = self.choice.randrange(80)
        chunk = self.frames[at : at + self.choice.choice((0, 1, 2, 9))]
        for _ in range(self.choice.choice((0, 1, 1, 2))):
            self.eager.ahead()
        if what == "step":
            assert_equal(self.eager.step(self.frames[at]), self.plain.step(self.frames[at]))
        elif what == "run":
            assert_equal(self.eager.run(chunk), self.plain.run(chunk))
        elif what == "reset":
            self.eager.reset()
            self.plain.reset()
        elif what == "keep":
            self.kept = self.eager.state
        elif self.kept is not None:
            self.eager.state = self.plain.state = self.kept
        self.compare()

    def compare(self) -> None:
        assert same(self.eager.state, self.plain.state)
        assert torch.equal(self.eager.exited, self.plain.exited)
        assert self.eager.stats == self.plain.stats

    def run(self, calls: int) -> None:
        kinds = ("step", "run", "reset", "keep", "go back")
        for what in self.choice.choices(kinds, weights=(12, 3, 1, 2, 2), k=calls):
            self.both(what)


@pytest.mark.parametrize(("shape", "policy", "_streams"), STREAMS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_policy_gives_the_same_bits(shape: StackShape, policy: Policy, _streams: bool, precision: str) -> None:
    lstm = adapted(
        torch_lstm(shape.input_size, shape.hidden_size, shape.num_layers, proj_size=shape.proj_size),
        FORMATS[precision],
        policy,
    )
    Pair(lstm, 3, 1).run(25)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("hidden", [7, 130])
@pytest.mark.parametrize(
    "policy", [None, al.Delta.uniform(0.02), al.Delta.uniform(0.0)], ids=["all", "some", "changed"]
)
def test_every_precision_and_size_gives_the_same_bits(name: str, batch: int, hidden: int, policy: Any) -> None:
    lstm = adapted(torch_lstm(12, hidden, 2, seed=hidden), FORMATS[name], policy)
    Pair(lstm, batch, batch).run(40)


@pytest.mark.parametrize("policy", [None, al.Delta.uniform(0.05)], ids=["dense", "delta"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_pruned_models_give_the_same_bits(precision: str, policy: Any) -> None:
    dense = torch_lstm(12, 130, 2)
    with torch.no_grad():
        for name, weights in dense.named_parameters():
            if name.startswith("weight"):
                weights[:, ::3] = 0
                weights[64:] *= (torch.rand(weights.shape[0] - 64, 1) > 0.7).to(weights)
    lstm = adapted(dense, FORMATS[precision], policy)
    Pair(lstm, 2, 3).run(40)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_states_beyond_the_range_of_integers_give_the_same_bits(precision: str) -> None:
    for policy in (None, al.Delta.uniform(0.05)):
        lstm = adapted(torch_lstm(5, 20, 2), FORMATS[precision], policy)
        pair = Pair(lstm, 2, 5)
        pair.run(3)
        kept = pair.eager.state
        kept.h[0, 1] *= 5 / kept.h[0, 1].abs().max().clamp_min(1e-6)
        pair.kept = kept
        for what in ("go back", "step", "go back", "run", "step", "step"):
            pair.both(what)


def test_a_refused_frame_leaves_what_was_done_ahead() -> None:
    lstm = adapted(torch_lstm(5, 20, 2), FORMATS["int8"], al.Delta.uniform(0.05))
    pair = Pair(lstm, 2, 5)
    pair.run(3)
    pair.eager.ahead()
    with pytest.raises(NonFiniteError):
        pair.eager.step(torch.full((2, 5), float("nan")))
    pair.compare()
    pair.both("step")


@pytest.mark.parametrize("kind", ["float64", "bfloat16", "head in Python", "reference"])
def test_other_executors_give_the_same(kind: str) -> None:
    lstm = torch_lstm(5, 9, 2)
    fast = adapted(lstm.to(torch.float64) if kind == "float64" else lstm.bfloat16() if kind == "bfloat16" else lstm)
    policies: dict[str, Any] = {
        "head in Python": al.ExitInTime(lambda s: s[:, :3], threshold=0.4, check_every=2),
        "reference": OnReference(al.Delta.uniform(0.01)),
    }
    fast.policy = policies.get(kind, al.Delta.uniform(0.01))
    dtype = next(fast.parameters()).dtype
    eager, plain = al.stream(fast, 2), al.stream(fast, 2)
    for frame in signal(20, 2, 5).to(dtype):
        eager.ahead()
        assert_equal(eager.step(frame), plain.step(frame))
    assert same(eager.state, plain.state)
    assert eager.stats == plain.stats


def test_the_next_step_does_not_read_the_recurrent_weights() -> None:
    """Columns of h are counted when they are sent, and the timestep that sent them was the one ahead."""
    lstm = adapted(torch_lstm(5, 20, 2), policy=al.Delta.uniform(0.0))
    stream = al.stream(lstm)
    stream.step(signal(1, 5))
    before = stream.stats
    stream.ahead()
    assert stream.stats == before
    stream.step(signal(1, 5, seed=1))
    assert stream.stats.columns[0].h_sent > before.columns[0].h_sent


def test_another_thread_is_refused_or_waits_its_turn() -> None:
    lstm = adapted(torch_lstm(64, 256, 3), FORMATS["int8"])
    eager, plain = al.stream(lstm), al.stream(lstm)
    frames = signal(400, 1, 64)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            try:
                eager.ahead()
            except BusyError:
                continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for frame in frames:
            while True:
                try:
                    got = eager.step(frame)
                    break
                except BusyError:
                    continue
            assert_equal(got, plain.step(frame))
    finally:
        done.set()
        thread.join()
    assert eager.stats == plain.stats


def test_with_an_exit_nothing_is_done_for_rows_that_have_left() -> None:
    lstm = adapted(torch_lstm(5, 9, 2), policy=al.ExitInTime(head(9), threshold=0.0, check_every=1))
    pair = Pair(lstm, 2, 0)
    for _ in range(4):
        pair.both("step")
    assert pair.eager.exited.all()


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_a_sequence_gives_the_same_bits_whatever_ran_before(quantize: str) -> None:
    """Columns of large matrices are added in the direction of the timestep, which alternates."""
    lstm = adapted(torch_lstm(40, 220), FORMATS[quantize], al.Delta.uniform(0.01))
    x = signal(7, 1, 40)  # an odd number of timesteps
    assert_equal(infer_natively(lstm, x), infer_natively(lstm, x))
    with al.stream(lstm) as first, al.stream(lstm) as second:
        want = [first.step(frame) for frame in x]
        second.step(x[0])
        second.reset()
        for frame, wanted in zip(x, want, strict=True):
            second.ahead()
            assert_equal(second.step(frame), wanted)
