"""Exits in depth: which sequences or timesteps leave the layers above, what stands in for them, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm.policies import DepthTranslators, Map

from ..support import by_hand
from ..support.helpers import adapted, assert_close, assert_equal, infer, lively, signal, torch_lstm

pytestmark = pytest.mark.usefixtures("float64_on_reference")

I = 5  # noqa: E741 (the letter of the input size everywhere)
H, P, L, C = 9, 6, 3, 4
LENGTHS = [20, 13, 20, 2, 17, 1, 9, 20]


def drawn(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def translators(D: int = 1) -> DepthTranslators:
    def some(seed: int) -> tuple[Map, ...]:
        w, layers = D * P, range(L - 1)
        return tuple(Map(drawn(w, (k + 1) * w, seed=seed + k, scale=0.5), drawn(w, seed=seed + 50 + k)) for k in layers)

    return DepthTranslators(some(0), some(10))


def stacked(policy: al.Policy, D: int = 1) -> al.AdaptiveLSTM:
    return lively(adapted(I, H, L, proj_size=P, bidirectional=D == 2, policy=policy))


def inputs(seed: int = 0) -> torch.Tensor:
    return signal(20, len(LENGTHS), I, seed=seed, step=0.5).double()


def by_map(m: Map, states: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(m.weight).to(states) @ states.flatten() + torch.as_tensor(m.bias).to(states)


class Question:
    """The three ways to decide, for D directions: a linear head, another callable, or none (agreement)."""

    def __init__(self, kind: str, D: int, threshold: tuple[float, float]):
        self.kind, self.D, self.threshold = kind, D, threshold
        self.weight, self.bias = drawn(C, D * P, seed=20), drawn(C, seed=21)
        self.exit_checks, self.exits = [0] * L, [0] * L

    def policy(self, level: Any) -> al.ExitInDepth:
        head: Any = {"linear": al.LinearHead(self.weight, self.bias), "callable": self.call, "none": None}[self.kind]
        return al.ExitInDepth(
            translators=translators(self.D), head=head, threshold=self.threshold, measure="max", level=level
        )

    def call(self, states: torch.Tensor) -> torch.Tensor:
        return (states @ torch.as_tensor(self.weight).to(states).T).sin()

    def leaves(self, maps: tuple[Map, ...], layer: int, states: torch.Tensor) -> torch.Tensor | None:
        """The translation of states [layer + 1, D * P] if it is trusted."""
        z = by_map(maps[layer], states)
        if self.kind == "none":
            if layer == 0 or self.threshold[layer] == 0:
                return None
            sure = by_hand.rms(z - by_map(maps[layer - 1], states[:-1])) < self.threshold[layer]
        else:
            if self.threshold[layer] >= 1:
                return None
            linear = torch.as_tensor(self.weight).to(z) @ z + torch.as_tensor(self.bias).to(z)
            logits = self.call(z[None])[0] if self.kind == "callable" else linear
            sure = float(logits.softmax(0).max()) > self.threshold[layer]
        self.exit_checks[layer] += 1
        self.exits[layer] += sure
        return z if sure else None

    def macs(self, translated: list[int], level: str) -> int:
        """Of the questions, and of translations for ``translated`` timesteps."""
        total, width = 0, self.D * P
        for layer in range(L - 1):
            known = (layer + 1) * width
            each = {"linear": C * known, "callable": width * known, "none": width * (known + layer * width)}[self.kind]
            total += self.exit_checks[layer] * each
            if level == "sequence" or self.kind == "linear":
                total += translated[layer] * width * known
        return total


QUESTIONS = [("linear", (0.8, 0.6)), ("linear", (1.0, 0.85)), ("callable", (0.5, 0.45)), ("none", (9.0, 1.6))]
EVERY_QUESTION = pytest.mark.parametrize(("kind", "threshold"), QUESTIONS)
BOTH_WAYS = pytest.mark.parametrize("D", [1, 2])


def run_packed(lstm: al.AdaptiveLSTM, x: torch.Tensor, *hx: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    packed, (h, c) = infer(lstm, pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False), *hx)
    return pad_packed_sequence(packed)[0], h, c


# ------------------------------------------------------------------------------------------------------ whole sequences


@BOTH_WAYS
@EVERY_QUESTION
@pytest.mark.parametrize("given_state", [False, True])
def test_every_sequence_leaves_by_hand(given_state: bool, kind: str, threshold: tuple[float, float], D: int) -> None:
    question, maps = Question(kind, D, threshold), translators(D)
    lstm, x = stacked(question.policy("sequence"), D), inputs()
    h_0, c_0 = torch.zeros(L * D, len(LENGTHS), P).double(), torch.zeros(L * D, len(LENGTHS), H).double()
    if given_state:
        h_0, c_0 = h_0 + signal(*h_0.shape, seed=1), c_0 + signal(*c_0.shape, seed=2)
    y, h, c = run_packed(lstm, x, *([(h_0, c_0)] if given_state else []))
    stats = lstm.last_run
    assert stats is not None
    ran, translated = [0] * L, [0] * L
    for row, length in enumerate(LENGTHS):
        dense = by_hand.run(lstm, x[:length, row], hx=(h_0[:, row], c_0[:, row]))
        h_n, c_n = dense.end
        want_y, want_h, want_c = dense.y, h_n.clone(), c_n.clone()
        for layer in range(L):
            ran[layer] += length
            known = (layer + 1) * D
            final = question.leaves(maps.finals, layer, h_n[:known].view(layer + 1, -1)) if layer < L - 1 else None
            if final is None:
                continue
            translated[layer] += length
            want_y = torch.stack([by_map(maps.steps[layer], states) for states in dense.h[:, :known]])
            want_y[-1, :P] = final[:P]
            want_y[0, P:] = final[P:]
            want_h[known:], want_c[known:] = h_0[known:, row], c_0[known:, row]
            want_h[-D:] = final.view(D, P)
            break
        assert_close((y[:length, row], h[:, row], c[:, row]), (want_y, want_h, want_c), "fp64")
    assert 0 < sum(question.exits) < len(LENGTHS)
    assert stats.exits == sum(question.exits)
    assert [col.ran for col in stats.columns] == [r for r in ran for _ in range(D)]
    assert stats.policy_macs == question.macs(translated, "sequence")
    steps = [lstm.stack_shape.step_macs(cell) for cell in range(L * D)]
    assert stats.macs == sum(r * s for r, s in zip(np.repeat(ran, D), steps, strict=True)) + stats.policy_macs
    assert stats.macs_possible == sum(LENGTHS) * sum(steps)


@BOTH_WAYS
def test_when_all_sequences_leave_the_layers_above_never_run(D: int) -> None:
    question = Question("linear", D, (0.0, 0.0))
    lstm = stacked(question.policy("sequence"), D)
    infer(lstm, inputs())
    assert lstm.last_run is not None
    assert (lstm.last_run.layers, lstm.last_run.exits) == (D, len(LENGTHS))
    assert [col.ran for col in lstm.last_run.columns] == [20 * len(LENGTHS)] * D + [0] * (2 * D)


# --------------------------------------------------------------------------------------------------------------- steps


@BOTH_WAYS
@EVERY_QUESTION
def test_every_timestep_leaves_by_hand(kind: str, threshold: tuple[float, float], D: int) -> None:
    question, maps = Question(kind, D, threshold), translators(D)
    lstm, x = stacked(question.policy("step"), D), inputs()
    y, h, c = run_packed(lstm, x)
    stats = lstm.last_run
    assert stats is not None
    ran = [0] * (L * D)
    for row, length in enumerate(LENGTHS):
        want = by_hand.run(
            lstm, x[:length, row], translate=lambda layer, states: question.leaves(maps.steps, layer, states)
        )
        assert_close((y[:length, row], (h[:, row], c[:, row])), (want.y, want.end), "fp64")
        for t, actions in enumerate(zip(*want.did, strict=True)):
            if "exited" in actions:  # the output is the translation of what was computed at this timestep
                layer = actions.index("exited") // D - 1
                translation = by_map(maps.steps[layer], want.h[t, : (layer + 1) * D])
                assert_close(y[t, row], translation, "fp64")
        ran = [r + actions.count("run") for r, actions in zip(ran, want.did, strict=True)]
    assert sum(LENGTHS) / 10 < sum(question.exits) < sum(LENGTHS)
    assert [col.ran for col in stats.columns] == ran
    assert stats.exits == 0  # sequences go on
    assert stats.policy_macs == question.macs(question.exits, "step")
    steps = [lstm.stack_shape.step_macs(cell) for cell in range(L * D)]
    assert stats.macs == sum(r * s for r, s in zip(ran, steps, strict=True)) + stats.policy_macs


@EVERY_QUESTION
def test_streams_leave_steps_as_whole_sequences_do(kind: str, threshold: tuple[float, float]) -> None:
    lstm, x = stacked(Question(kind, 1, threshold).policy("step")), inputs()
    whole, (h, c) = infer(lstm, x)
    for chunks in ([1] * 20, [3, 0, 8, 1, 8]):
        with al.stream(lstm, batch_size=len(LENGTHS)) as s:
            got = torch.cat([s.run(part) for part in x.split(chunks)])
            assert_close((got, s.state.h, s.state.c), (whole, h, c), "fp64")
            assert s.stats == lstm.last_run
            assert not s.exited.any()


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("level", ["sequence", "step"])
@pytest.mark.parametrize("head", [al.LinearHead(drawn(C, P, seed=20), drawn(C, seed=21)), lambda s: 1e3 * s, None])
def test_the_null_setting_never_leaves(head: Any, level: Any) -> None:
    x = torch.ones(20, 3, I)
    for maps, threshold in ((None, None), (translators(), None), (translators(), 0.0 if head is None else 1.0)):
        policy = al.ExitInDepth(translators=maps, head=head, threshold=threshold, level=level)
        assert not policy.active
        lstm = adapted(I, H, L, proj_size=P, policy=policy)
        assert_close(infer(lstm, x), infer(torch_lstm(I, H, L, proj_size=P), x), "fp32")
        assert lstm.last_run is not None
        assert lstm.last_run.macs == lstm.last_run.macs_possible
        exact = infer(lstm.double(), x.double())
        assert_equal(exact, infer(torch_lstm(I, H, L, proj_size=P).double(), x.double()))


@settings(max_examples=15)
@given(st.sampled_from(["linear", "callable"]), st.sampled_from(["sequence", "step"]), st.integers(0, 99))
def test_a_looser_threshold_never_adds_work(kind: str, level: str, seed: int) -> None:
    # Asked after the first layer only, whose states do not depend on who left: more leave under a looser threshold.
    x, ran = inputs(seed), []
    for threshold in (1.0, 0.9, 0.6, 0.45, 0.3, 0.0):
        lstm = stacked(Question(kind, 1, (threshold, 1.0)).policy(level))
        infer(lstm, x)
        assert lstm.last_run is not None
        ran.append(lstm.last_run.columns[-1].ran)
    assert ran == sorted(ran, reverse=True)
    assert (ran[0], ran[-1]) == (20 * len(LENGTHS), 0)
