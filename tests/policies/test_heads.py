"""What exits look through: heads and how sure they are, and the maps that translate states."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import adaptive_lstm as al
from adaptive_lstm.policies import DepthTranslators, Map, TimeTranslators
from adaptive_lstm.policies.head import as_head, confidence
from adaptive_lstm.policies.translators import bucket

from ..support import by_hand
from ..support.helpers import adapted, assert_close, assert_equal, flat, infer, signal

P, C = 6, 4
STATES = torch.randn(20, P, generator=torch.Generator().manual_seed(0)).double()
LINEAR = nn.Linear(P, C)


@pytest.mark.parametrize(
    ("head", "activation"),
    [
        (LINEAR, "softmax"),
        (nn.Sequential(nn.Dropout(), LINEAR, nn.Softmax(dim=1)), "softmax"),
        (nn.Sequential(LINEAR, nn.Identity(), nn.LogSoftmax(dim=1)), "softmax"),
        (nn.Sequential(LINEAR, nn.Sigmoid()), "sigmoid"),
        (nn.Sequential(LINEAR, nn.Dropout()), "softmax"),
        (nn.Linear(P, 1), "sigmoid"),
        (nn.Linear(P, C, bias=False).half(), "softmax"),
    ],
)
def test_linear_heads_become_data(head: nn.Module, activation: str) -> None:
    head = copy.deepcopy(head)  # it is changed below
    got = as_head(head)
    assert isinstance(got, al.LinearHead)
    assert got.activation == activation
    linear = next(m for m in head.modules() if isinstance(m, nn.Linear))
    want = linear.double()(STATES)
    torch.testing.assert_close(got(STATES), want, rtol=0, atol=1e-12)
    weight = got.weight.copy()
    with torch.no_grad():
        linear.weight.zero_()
    assert np.array_equal(got.weight, weight)  # a copy
    assert as_head(got) is got


@pytest.mark.parametrize("head", [nn.Sequential(nn.Tanh(), LINEAR), nn.Sequential(LINEAR, nn.ReLU()), torch.sin])
def test_other_heads_stay_callables(head: Any) -> None:
    assert as_head(head) is head


@pytest.mark.parametrize("measure", ["margin", "max", "entropy"])
def test_confidence_by_hand(measure: Any) -> None:
    weight, bias = np.random.default_rng(0).standard_normal((C, P)), np.linspace(-1, 1, C)
    head = al.LinearHead(weight, bias)  # type: ignore[arg-type]
    logits = STATES @ torch.as_tensor(head.weight).double().T + torch.as_tensor(head.bias).double()
    exclusive = [by_hand.confidence(p, measure) for p in logits.softmax(1)]
    answers = torch.stack([logits.sigmoid(), 1 - logits.sigmoid()], dim=2)
    each = [min(by_hand.confidence(p, measure) for p in row) for row in answers]
    one = [by_hand.confidence(row[0], measure) for row in answers]
    sigmoid = al.LinearHead(head.weight, head.bias, "sigmoid")
    for given, want in (
        (head, exclusive),
        (lambda s: head(s), exclusive),
        (sigmoid, each),
        (lambda s: head(s)[:, :1], one),  # one logit is a sigmoid's
    ):
        got = confidence(given, STATES, measure)
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)
    certain = confidence(lambda s: 1000.0 * torch.eye(C), torch.zeros(C, P), measure)
    assert certain.tolist() == [1.0] * C
    undecided = confidence(lambda s: torch.zeros(1, C), torch.zeros(1, P), measure)
    assert float(undecided) == pytest.approx(1 / C if measure == "max" else 0.0, abs=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_linear_head_has_classes(activation: Any) -> None:
    with pytest.raises(al.errors.PolicyError, match=r"head: got weight \(0, 6\), which has no classes"):
        al.LinearHead(np.zeros((0, P), np.float32), np.zeros(0, np.float32), activation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of an empty tensor
        head = nn.Linear(P, 0)
    with pytest.raises(al.errors.PolicyError, match="which has no classes"):
        al.ExitInTime(head, threshold=0.5)


def test_a_head_of_the_wrong_shape_changes_nothing() -> None:
    x, wrong = signal(9, 2, 3), [lambda s: s[0], lambda s: s[:, 0], lambda s: s.T]
    for head in wrong:
        lstm = adapted(3, P, policy=al.ExitInTime(head, threshold=0.5, check_every=5))
        with pytest.raises(al.errors.PolicyError, match="expected \\[n, C\\]"):
            infer(lstm, x)
        assert lstm.last_run is None
        with al.stream(lstm, batch_size=2) as s:
            s.run(x[:4])
            before = flat(s.state)
            with pytest.raises(al.errors.PolicyError, match="expected \\[n, C\\]"):
                s.step(x[4])
            assert all(torch.equal(a, b) for a, b in zip(before, flat(s.state), strict=True))
            assert s.stats.timesteps == 8


def test_a_map_by_ridge_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((300, 5)), rng.standard_normal((300, 3)) / 10
    y = x @ rng.standard_normal((5, 3)) + [1.0, 0.0, -1.0] + noise
    z = np.hstack([x, np.ones((300, 1))])
    for strength in (0.0, 1e-2, 1.0):
        ridge = strength * np.trace(z.T @ z) / 6
        # Ridge is least squares with one more row per input.
        inputs, outputs = np.vstack([z, ridge**0.5 * np.eye(6)]), np.vstack([y, np.zeros((6, 3))])
        solved = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
        got = Map.ridge(z.T @ z, z.T @ y, strength)
        np.testing.assert_allclose(got.weight, solved[:5].T, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.bias, solved[5], rtol=0, atol=1e-6)
        translated = got(torch.as_tensor(x))
        np.testing.assert_allclose(translated.numpy(), x @ got.weight.T.astype(float) + got.bias, rtol=0, atol=1e-12)


def test_time_buckets() -> None:
    assert [bucket((0, 3, 10), t) for t in (0, 2, 3, 9, 10, 999)] == [0, 0, 1, 1, 2, 2]


GOOD = Map(np.zeros((2, 3), np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("make", "args", "message"),
    [
        (al.LinearHead, (np.zeros((2, 3)), np.zeros(3)), "expected \\[C, P\\] and \\[C\\]"),
        (al.LinearHead, (np.zeros(3), np.zeros(3)), "expected \\[C, P\\]"),
        (al.LinearHead, (np.full((2, 3), np.nan), np.zeros(2)), "NaN"),
        (al.LinearHead, (np.zeros((2, 3)), np.zeros(2), "tanh"), "activation"),
        (al.LinearHead, (np.zeros((1, 3)), np.zeros(1)), "always confident"),
        (Map, (np.zeros((2, 3)), np.zeros(3)), "translator"),
        (Map, (np.zeros((2, 3)), np.full(2, np.inf)), "infinity"),
        (TimeTranslators, ((0, 5), (GOOD,)), "1 maps for 2"),
        (TimeTranslators, ((5,), (GOOD,)), "buckets"),
        (TimeTranslators, ((), ()), "buckets"),
        (DepthTranslators, ((GOOD,), ()), "1 maps of steps and 0"),
    ],
)
def test_impossible_settings(make: Any, args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(al.errors.PolicyError, match=message):
        make(*args)


# ------------------------------------------------------------------------------------- heads that only Python can ask


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_callable_head_is_asked_between_native_chunks(precision: Any) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(16, 4)
    nn.init.normal_(linear.weight, std=4.0)
    lstm = adapted(6, 16, 2, quantize=precision)
    x = pack_sequence([signal(n, 1, 6, seed=n)[:, 0] for n in (30, 22, 17, 5)])
    found = []
    for head in (linear, lambda state: linear(state)):
        with torch.no_grad():
            lstm.policy = al.Combined(
                al.Delta.uniform(0.05),
                al.SkipTimesteps(x_share=0.5),
                al.ExitInTime(head, threshold=0.3, measure="max", check_every=3),
            )
        found.append((infer(lstm, x), lstm.last_run))
    (want, of_linear), (got, of_callable) = found
    assert_close(got, want, precision)
    assert of_linear is not None
    assert of_callable is not None
    assert of_linear.route.by == "native"
    assert of_callable.route == al.types.Route("mixed", "the head is written in Python")
    assert of_callable.exits == of_linear.exits > 0
    assert of_callable.columns == of_linear.columns
    with al.stream(lstm, batch_size=2) as s:
        frames = signal(20, 2, 6)
        whole = s.run(frames)
        done = s.exited
        s.reset()
        assert_equal(torch.cat([s.run(frames[:7]), s.run(frames[7:])]), whole)
        assert torch.equal(s.exited, done)
