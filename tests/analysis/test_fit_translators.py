"""Translators against an independent ridge regression on torch's own states: in time, in depth, for every layout."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import adaptive_lstm as al
from adaptive_lstm.analysis.fit_translators import MIN_SAMPLES
from adaptive_lstm.policies import Map

from ..support.helpers import adapted, infer, signal

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own note about its own path

I, H = 4, 6  # noqa: E741 (the letter of the input size everywhere)
RIDGE = 0.01
LENGTHS = [30, 24, 24, 11, 7, 3]
Array = npt.NDArray[np.float64]


def states(lstm: nn.LSTM, x: torch.Tensor, hx: Any = None) -> list[Array]:
    """Outputs [T, D * P] of every layer for x [T, I]: torch stacks of one layer, two, ..., with its weights."""
    out = []
    for layers in range(1, lstm.num_layers + 1):
        part = nn.LSTM(I, H, layers, bias=lstm.bias, bidirectional=lstm.bidirectional, proj_size=lstm.proj_size).eval()
        part.load_state_dict({k: v for k, v in lstm.state_dict().items() if k in part.state_dict()})
        cells = layers * (2 if lstm.bidirectional else 1)
        given = None if hx is None else (hx[0][:cells].contiguous(), hx[1][:cells].contiguous())
        out.append(infer(part, x, given)[0].double().numpy())
    return out


def finals(levels: list[Array], directions: int) -> list[Array]:
    """The same where each direction ended: h_n [D * P] of every layer."""
    half = levels[0].shape[1] // directions
    return [np.concatenate([h[-1, :half], h[0, half:]]) if directions == 2 else h[-1] for h in levels]


def ridge(z: Array, y: Array) -> tuple[Array, Array]:
    """min |[z 1] w - y|^2 + r |w|^2, r a share of the mean square of the columns, as an augmented least squares."""
    z = np.column_stack([z, np.ones(len(z))])
    r = RIDGE * (z**2).sum() / z.shape[1]
    rows = np.vstack([z, math.sqrt(r) * np.eye(z.shape[1])])
    w = np.linalg.lstsq(rows, np.vstack([y, np.zeros((z.shape[1], y.shape[1]))]), rcond=None)[0]
    return w[:-1].T, w[-1]


def assert_map(got: Map, z: list[Array], y: list[Array]) -> None:
    weight, bias = ridge(np.vstack(z), np.vstack(y))
    np.testing.assert_allclose(got.weight, weight, atol=2e-4)
    np.testing.assert_allclose(got.bias, bias, atol=2e-4)


def sequences(n: int = 60) -> list[torch.Tensor]:
    return [signal(LENGTHS[i % 6], I, seed=i, step=0.4) for i in range(n)]


OPTIONS: list[dict[str, Any]] = [
    {"num_layers": 1},
    {"num_layers": 3},
    {"num_layers": 2, "proj_size": 4},
    {"num_layers": 2, "bias": False},
    {"num_layers": 3, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "proj_size": 3},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_against_an_independent_ridge(options: dict[str, Any]) -> None:
    lstm, data = adapted(I, H, **options), sequences(120)
    found = al.fit_translators(lstm, data, buckets=3, ridge=RIDGE)
    levels = [states(lstm, x) for x in data]
    D = 2 if lstm.bidirectional else 1
    ends = [finals(one, D) for one in levels]
    if D == 2:
        assert found.time is None
    else:
        assert found.time is not None
        starts = found.time.starts
        assert starts == (0, 10, 20)
        for b, start in enumerate(starts):
            part = slice(start, starts[b + 1] if b + 1 < len(starts) else None)
            z = [np.concatenate(one, axis=1)[part] for one in levels]
            y = [np.repeat(end[-1][None], len(a), axis=0) for a, end in zip(z, ends, strict=True)]
            assert_map(found.time.maps[b], z, y)
    layers = options["num_layers"]
    if layers == 1:
        assert found.depth is None
        return
    assert found.depth is not None
    for k in range(layers - 1):
        assert_map(
            found.depth.steps[k], [np.concatenate(one[: k + 1], axis=1) for one in levels], [one[-1] for one in levels]
        )
        assert_map(found.depth.finals[k], [np.concatenate(e[: k + 1])[None] for e in ends], [e[-1][None] for e in ends])


def assert_same(a: al.Translators, b: al.Translators) -> None:
    for one, other in ((a.time, b.time), (a.depth, b.depth)):
        assert (one is None) == (other is None)
    maps = [
        (m for t in (x.time and x.time.maps, x.depth and x.depth.steps, x.depth and x.depth.finals) for m in t or ())
        for x in (a, b)
    ]
    for m, n in zip(*maps, strict=True):
        np.testing.assert_allclose(m.weight, n.weight, atol=1e-4)
        np.testing.assert_allclose(m.bias, n.bias, atol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_layout_gives_the_same(bidirectional: bool) -> None:
    data = sequences()
    lstm = adapted(I, H, 2, bidirectional=bidirectional)
    first = adapted(I, H, 2, bidirectional=bidirectional, batch_first=True)
    by_length: dict[int, list[torch.Tensor]] = {}
    for x in data:
        by_length.setdefault(len(x), []).append(x)
    padded = torch.nn.utils.rnn.pad_sequence(data)
    lengths = torch.tensor([len(x) for x in data])
    want = al.fit_translators(lstm, data, buckets=2)
    layouts: list[tuple[al.AdaptiveLSTM, list[Any]]] = [
        (lstm, [pack_padded_sequence(padded, lengths, enforce_sorted=False)]),
        (lstm, [pack_sequence(data[i : i + 6]) for i in range(0, 60, 6)]),
        (lstm, [torch.stack(same, dim=1) for same in by_length.values()]),
        (first, [torch.stack(same) for same in by_length.values()]),
    ]
    for model, inputs in layouts:
        got = al.fit_translators(model, inputs, buckets=2)
        if got.time and want.time:
            assert got.time.starts == want.time.starts
        assert_same(got, want)
    assert_same(al.fit_translators(lstm, layouts[0][1][0], buckets=2), want)  # one batch alone


def test_initial_states_count() -> None:
    lstm, data = adapted(I, H, 2), sequences()
    hx = (torch.full((2, H), 0.5), torch.full((2, H), -1.0))
    found = al.fit_translators(lstm, [(x, hx) for x in data], buckets=1, ridge=RIDGE)
    levels = [states(lstm, x, hx) for x in data]
    assert found.time is not None
    z = [np.concatenate(one, axis=1) for one in levels]
    assert_map(found.time.maps[0], z, [np.repeat(one[-1][-1:], len(one[-1]), axis=0) for one in levels])
    packed = pack_sequence(list(reversed(data[:6])), enforce_sorted=False)
    many = (torch.stack([hx[0] * k for k in range(6)], dim=1), torch.stack([hx[1] * k for k in range(6)], dim=1))
    one_by_one = [(x, (hx[0] * k, hx[1] * k)) for k, x in enumerate(reversed(data[:6]))]
    assert_same(al.fit_translators(lstm, [(packed, many)], buckets=1), al.fit_translators(lstm, one_by_one, buckets=1))


def test_what_the_model_does_otherwise_does_not_matter() -> None:
    data = sequences()
    exact = adapted(I, H, 2)
    busy = adapted(I, H, 2, policy=al.Combined(al.Delta.uniform(0.2), al.SkipTimesteps(x_share=0.5)), quantize="int8")
    busy.plan = replace(busy.plan, expected_rates={})
    assert busy.monitor is not None
    policy, before, last = busy.policy, infer(busy, data[0]), busy.last_run
    seen = busy.monitor.status.seen
    assert_same(al.fit_translators(busy, data), al.fit_translators(exact, data))
    assert busy.policy is policy
    assert busy.quantize.precision == "int8"
    assert busy.last_run == last
    assert busy.monitor is not None
    assert busy.monitor.status.seen == seen
    assert torch.equal(infer(busy, data[0])[0], before[0])


def test_double_precision() -> None:
    data = sequences()
    lstm = adapted(I, H, 2).double()
    assert_same(al.fit_translators(lstm, [x.double() for x in data]), al.fit_translators(adapted(I, H, 2), data))


def test_buckets_with_little_data_join() -> None:
    lstm = adapted(I, H, 1)

    def starts(inputs: list[torch.Tensor], buckets: int = 12) -> tuple[int, ...]:
        found = al.fit_translators(lstm, inputs, buckets=buckets).time
        assert found is not None
        return found.starts

    assert starts([signal(12, I)]) == (0,)
    many = [signal(6, I, seed=i) for i in range(MIN_SAMPLES)]
    assert starts(many) == tuple(range(6))  # no more buckets than timesteps
    assert starts(many, buckets=2) == (0, 3)
    short = [signal(3, I, seed=i) for i in range(MIN_SAMPLES)]
    long = [signal(6, I, seed=i) for i in range(MIN_SAMPLES // 2)]
    assert starts([*short, *long], buckets=6) == (0, 1, 2, 3)[:3]  # the rest holds 150 per step
    assert starts(many[: MIN_SAMPLES - 1], buckets=3) == (0, 2, 4)


class Two(nn.Module):
    """Two LSTMs in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.LSTM(I, H), nn.LSTM(H, 3, 2)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last output."""
        out: torch.Tensor = self.b(self.a(x)[0])[0][-1]
        return out


def test_one_of_several() -> None:
    model, data = al.adapt(Two()), sequences()
    with pytest.raises(al.errors.InputError, match="say which one"):
        al.fit_translators(model, data)
    with pytest.raises(al.errors.InputError, match="got 'c', expected one of 'a', 'b'"):
        al.fit_translators(model, data, lstm="c")
    found = al.fit_translators(model, data, lstm="b", buckets=1)
    assert found.time is not None
    assert found.time.maps[0].weight.shape == (3, 6)
    a: Any = model.a
    b: Any = model.b
    assert_same(found, al.fit_translators(b, [infer(a, x)[0] for x in data], buckets=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": 0}, "buckets: got 0"),
        ({"buckets": True}, "buckets: got True"),
        ({"ridge": -1.0}, "ridge: got -1"),
        ({"ridge": math.nan}, "ridge: got nan"),
        ({"ridge": math.inf}, "ridge: got inf"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(al.errors.InputError, match=message):
        al.fit_translators(adapted(I, H), sequences(6), **options)


def test_inputs_that_cannot_be_fitted() -> None:
    lstm = adapted(I, H, 2, policy=al.Delta.uniform(0.1))
    cases: list[tuple[Any, str, str]] = [
        ([], "InputError", "used up"),
        (iter(()), "InputError", "used up"),
        ([torch.full((5, I), math.nan)], "NonFiniteError", "NaN"),
        ([torch.zeros(5, I + 1)], "InputError", "features"),
    ]
    for inputs, error, message in cases:
        with pytest.raises(getattr(al.errors, error), match=message):
            al.fit_translators(lstm, inputs)
        assert "forward" not in vars(lstm)
        assert lstm.policy == al.Delta.uniform(0.1)
    with pytest.raises(al.errors.InputError, match="training mode"):
        al.fit_translators(adapted(I, H).train(), sequences(6))


def test_they_foresee_the_end() -> None:
    """Early on, the translated state is nearer to the final one than the state itself."""
    lstm = adapted(I, H, 2)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.mul_(2)
    data = [0.3 * torch.randn(24, I) + torch.randn(I) for _ in range(300)]
    found = al.fit_translators(lstm, data[:200], buckets=12)
    assert found.time is not None
    policy = al.ExitInTime(translators=found.time)
    errors = []
    for x in data[200:]:
        levels = states(lstm, x)
        now = torch.tensor(np.stack([h[3] for h in levels])[None], dtype=torch.float32)
        end = levels[-1][-1]
        errors.append([np.linalg.norm(policy.translate(3, now)[0].numpy() - end), np.linalg.norm(levels[-1][3] - end)])
    translated, as_it_is = np.mean(errors, axis=0)
    assert translated < 0.7 * as_it_is
