"""Exits in time: who leaves when, what is handed back from then on, and what the questions cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm.policies import Map, TimeTranslators

from ..support import by_hand
from ..support.helpers import adapted, assert_close, assert_equal, infer, lively, signal, torch_lstm

pytestmark = pytest.mark.usefixtures("float64_on_reference")

I = 5  # noqa: E741 (the letter of the input size everywhere)
H, P, L = 9, 6, 3
LENGTHS = [40, 31, 40, 7, 23, 1, 40, 16]


def drawn(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


MAPS = tuple(Map(drawn(P, L * P, seed=k), drawn(P, seed=9 + k, scale=0.1)) for k in range(3))
TRANSLATORS = TimeTranslators((0, 8, 20), MAPS)
WEIGHT, BIAS = drawn(4, P, seed=20, scale=2.0), drawn(4, seed=21)


def odd_head(state: torch.Tensor) -> torch.Tensor:
    return state.tanh() @ torch.as_tensor(WEIGHT).to(state).T


def logits(state: torch.Tensor, rows: int = 4) -> torch.Tensor:
    return torch.as_tensor(WEIGHT[:rows]).to(state) @ state + torch.as_tensor(BIAS[:rows]).to(state)


@dataclass(frozen=True)
class Case:
    """A policy, and what it should do: the distributions [K, C] that the head sees in a translation [P]."""

    policy: al.ExitInTime
    distributions: Callable[[torch.Tensor], torch.Tensor] | None = None
    measure: str = "margin"
    thresholds: tuple[float, ...] = (0.0,)
    starts: tuple[int, ...] = (0,)
    width: int = 0  # C of a linear head

    def translate(self, t: int, h: torch.Tensor) -> torch.Tensor:
        if self.policy.translators is None:
            return h[-1]
        m = MAPS[sum(s <= t for s in (8, 20))]
        return torch.as_tensor(m.weight).to(h) @ h.flatten() + torch.as_tensor(m.bias).to(h)

    def sure(self, t: int, z: torch.Tensor, past: list[torch.Tensor]) -> bool:
        threshold = self.thresholds[sum(s <= t for s in self.starts) - 1]
        if self.distributions:
            return min(by_hand.confidence(p, self.measure) for p in self.distributions(z)) > threshold
        window = self.policy.window
        return len(past) >= window and by_hand.rms(z - past[-window]) < threshold

    def when(self, h: torch.Tensor, *, open_ended: bool = False) -> tuple[int | None, torch.Tensor, int]:
        every, patience = self.policy.check_every, self.policy.patience
        return by_hand.exit_in_time(h, self.translate, self.sure, every=every, patience=patience, open_ended=open_ended)

    def macs(self, asked: int, left: int) -> int:
        known = P if self.policy.translators is None else L * P
        translation = 0 if self.policy.translators is None else P * known
        return asked * self.width * known + left * translation if self.width else asked * translation


def softmax(z: torch.Tensor) -> torch.Tensor:
    return logits(z).softmax(0)[None]


def yes_no(rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda z: torch.stack([logits(z, rows).sigmoid(), 1 - logits(z, rows).sigmoid()], dim=1)


LINEAR = al.LinearHead(WEIGHT, BIAS)
CASES = {
    "margin": Case(al.ExitInTime(LINEAR, threshold=0.6, translators=TRANSLATORS), softmax, "margin", (0.6,), width=4),
    "max, buckets of the translators": Case(
        al.ExitInTime(
            LINEAR, threshold=(0.95, 0.7, 0.8), measure="max", translators=TRANSLATORS, check_every=1, patience=2
        ),
        softmax,
        "max",
        (0.95, 0.7, 0.8),
        (0, 8, 20),
        width=4,
    ),
    "entropy, own buckets, untranslated": Case(
        al.ExitInTime(LINEAR, threshold=(1.0, 0.6), measure="entropy", starts=(0, 10), check_every=3),
        softmax,
        "entropy",
        (1.0, 0.6),
        (0, 10),
        width=4,
    ),
    "sigmoid": Case(
        al.ExitInTime(
            replace(LINEAR, activation="sigmoid"), threshold=0.3, translators=TRANSLATORS, check_every=2, patience=2
        ),
        yes_no(4),
        "margin",
        (0.3,),
        width=4,
    ),
    "one logit": Case(
        al.ExitInTime(
            al.LinearHead(WEIGHT[:1], BIAS[:1], "sigmoid"),
            threshold=0.5,
            measure="entropy",
            translators=TRANSLATORS,
            check_every=1,
            patience=3,
        ),
        yes_no(1),
        "entropy",
        (0.5,),
        width=1,
    ),
    "callable": Case(
        al.ExitInTime(odd_head, threshold=0.5, translators=TRANSLATORS, check_every=5),
        lambda z: (torch.as_tensor(WEIGHT).to(z) @ z.tanh()).softmax(0)[None],
        "margin",
        (0.5,),
    ),
    "settled": Case(al.ExitInTime(None, threshold=0.07, check_every=2, window=3), None, "", (0.07,)),
    "translation settled": Case(
        al.ExitInTime(threshold=(0.0, 0.2, 0.3), translators=TRANSLATORS, check_every=1, window=1, patience=2),
        None,
        "",
        (0.0, 0.2, 0.3),
        (0, 8, 20),
    ),
}
EVERY_CASE = pytest.mark.parametrize("name", CASES)


def stacked(policy: al.Policy, **options: Any) -> al.AdaptiveLSTM:
    return lively(adapted(I, H, L, proj_size=P, policy=policy, **options))


def inputs(seed: int = 0) -> torch.Tensor:
    return signal(40, len(LENGTHS), I, seed=seed, step=0.3).double()


def stats_of(lstm: al.AdaptiveLSTM) -> al.RunStats:
    assert lstm.last_run is not None
    return lstm.last_run


# ------------------------------------------------------------------------------------------------------ whole sequences


@EVERY_CASE
def test_every_row_leaves_by_hand(name: str) -> None:
    case = CASES[name]
    lstm, x = stacked(case.policy), inputs()
    packed, (h, c) = infer(lstm, pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False))
    y, stats = pad_packed_sequence(packed)[0], stats_of(lstm)
    left, asked, steps = [], 0, 0
    for row, length in enumerate(LENGTHS):
        dense = by_hand.run(lstm, x[:length, row])
        when, translation, questions = case.when(dense.h)
        asked, steps = asked + questions, steps + (length if when is None else when + 1)
        if when is None:
            assert_close((y[:length, row], (h[:, row], c[:, row])), (dense.y, dense.end), "fp64")
            continue
        left.append(when)
        assert when < length - 1
        assert_close(y[:when, row], dense.y[:when], "fp64")
        assert_close(y[when:length, row], translation.expand(length - when, P), "fp64")
        assert_close(h[:, row], torch.cat([dense.h[when, :-1], translation[None]]), "fp64")
        assert_close(c[:, row], dense.c[when], "fp64")
    assert len(set(left)) > 1
    assert 1 < len(left) < len(LENGTHS)
    step = sum(lstm.stack_shape.step_macs(cell) for cell in range(L))
    assert stats.exits == len(left)
    assert stats.policy_macs == case.macs(asked, len(left))
    assert stats.macs == steps * step + stats.policy_macs
    assert (stats.macs_possible, stats.timesteps) == (sum(LENGTHS) * step, sum(LENGTHS))
    assert [col.ran for col in stats.columns] == [steps] * L
    assert stats.activity == stats.ran == pytest.approx(steps / sum(LENGTHS), abs=1e-15)


@EVERY_CASE
def test_layouts_and_given_states(name: str) -> None:
    lstm, x = stacked(CASES[name].policy), inputs()
    h_0, c_0 = (signal(L, len(LENGTHS), width, seed=1).double() for width in (P, H))
    y, (h, c) = infer(lstm, x, (h_0, c_0))
    for row in (0, 5):
        alone, (h_1, c_1) = infer(lstm, x[:, row], (h_0[:, row], c_0[:, row]))
        assert_close((alone, h_1, c_1), (y[:, row], h[:, row], c[:, row]), "fp64")
    batch_first = stacked(lstm.policy, batch_first=True)
    assert_close(infer(batch_first, x.transpose(0, 1), (h_0, c_0)), (y.transpose(0, 1), h, c), "fp64")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize(
    "policy",
    [
        al.ExitInTime(LINEAR),
        al.ExitInTime(LINEAR, threshold=1.0, measure="entropy", translators=TRANSLATORS, check_every=1),
        al.ExitInTime(odd_head, threshold=(2.0, 1.0, 1.0), measure="max", translators=TRANSLATORS),
        al.ExitInTime(),
        al.ExitInTime(None, threshold=0.0, translators=TRANSLATORS, window=1, check_every=1),
    ],
)
def test_the_null_setting_never_leaves(policy: al.ExitInTime) -> None:
    assert not policy.active
    x = torch.ones(30, 2, I)  # everything settles
    lstm = adapted(I, H, L, proj_size=P, policy=policy)
    assert_close(infer(lstm, x), infer(torch_lstm(I, H, L, proj_size=P), x), "fp32")
    assert stats_of(lstm).exits == 0
    exact = infer(lstm.double(), x.double())
    assert_equal(exact, infer(torch_lstm(I, H, L, proj_size=P).double(), x.double()))


def test_nobody_is_asked_after_the_last_step() -> None:
    lstm, x = stacked(al.ExitInTime(LINEAR, threshold=0.0, check_every=4)), inputs()  # always sure
    for steps, exits in ((3, 0), (4, 0), (5, len(LENGTHS)), (40, len(LENGTHS))):
        y, (h, _) = infer(lstm, x[:steps])
        stats = stats_of(lstm)
        assert (stats.exits, stats.policy_macs) == (exits, exits * 4 * P)
        assert stats.columns[0].ran == min(steps, 4) * len(LENGTHS)
        assert_equal(y[-1], h[-1])
    with al.stream(lstm, batch_size=len(LENGTHS)) as s:  # which may always go on
        s.run(x[:3])
        assert not s.exited.any()
        s.step(x[3])
        assert s.exited.all()


@EVERY_CASE
def test_a_looser_threshold_never_leaves_later(name: str) -> None:
    policy, x = CASES[name].policy, inputs(seed=1)[:30]
    steps = []
    for share in (0.5, 0.8, 1.0, 1.2, 2.0):  # on a fixed trace: what is computed does not depend on the threshold
        rule = tuple(t * share if policy.head is None else t / share for t in policy.thresholds)
        lstm = stacked(replace(policy, threshold=rule, window=max(policy.window, 1)))
        alone = []
        for row in range(3):
            infer(lstm, x[:, row])
            alone.append(stats_of(lstm).columns[0].ran)
        steps.append(torch.tensor(alone))
    assert all(bool((looser <= tighter).all()) for tighter, looser in pairwise(steps))
    assert steps[-1].sum() < steps[0].sum()


# -------------------------------------------------------------------------------------------------------------- streams


@EVERY_CASE
def test_streams_leave_by_hand_in_any_chunks(name: str) -> None:
    case, x = CASES[name], inputs()
    lstm, batch = stacked(case.policy), len(LENGTHS)
    ends, wanted, asked = [], torch.zeros(40, batch, P).double(), 0
    for row in range(batch):
        dense = by_hand.run(lstm, x[:, row])
        when, translation, questions = case.when(dense.h, open_ended=True)
        asked += questions
        ends.append(40 if when is None else when)
        wanted[:, row] = dense.y
        wanted[ends[-1] :, row] = translation
    done = torch.tensor(ends) < 40
    assert len(set(ends)) > 1
    for chunks in ([40], [1] * 40, [3, 0, 8, 1, 1, 20, 7]):
        with al.stream(lstm, batch_size=batch) as s:
            t = 0
            for part in x.split(chunks):
                assert_close(s.run(part), wanted[t : t + len(part)], "fp64")
                t += len(part)
                assert torch.equal(s.exited, torch.tensor(ends) < t)
            assert_close(s.state.h[-1], wanted[-1], "fp64")
            assert (s.stats.exits, s.stats.policy_macs) == (int(done.sum()), case.macs(asked, int(done.sum())))
            assert s.stats.columns[0].ran == sum(min(40, end + 1) for end in ends)
    with al.stream(lstm, batch_size=batch) as s, al.stream(lstm, batch_size=batch) as other:
        for t in range(40):  # the state carries everything: two streams take turns
            s, other = other, s
            s.state = other.state
            assert_close(s.step(x[t]), wanted[t], "fp64")
        assert torch.equal(s.exited, done)
        s.reset()
        assert not s.exited.any()
        assert_close(s.run(x), wanted, "fp64")


def test_a_stream_that_is_done_computes_nothing() -> None:
    lstm, x = stacked(al.ExitInTime(LINEAR, threshold=0.0, check_every=2)), inputs()
    with al.stream(lstm, batch_size=len(LENGTHS)) as s:
        s.run(x[:2])
        assert s.exited.all()
        macs, final, c = s.stats.macs, s.state.h[-1], s.state.c
        assert_equal(s.run(x[2:30]), final.expand(28, -1, -1))
        assert_equal((s.state.h[-1], s.state.c), (final, c))
        assert s.stats.macs == macs
        assert s.stats.timesteps == 30 * len(LENGTHS)
        s.exited.fill_(False)  # a copy
        assert s.exited.all()
