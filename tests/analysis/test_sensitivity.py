"""Output sensitivity against an exact Jacobian, and the thresholds that follow from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import adaptive_lstm as al

from ..support.helpers import adapted, assert_equal, infer, only_lstm, signal, torch_lstm

I = 3  # noqa: E741 (the letter of the input size everywhere)
H, B, T = 5, 2, 6
PROBES = 1000
NOISE = 5 * (2 / PROBES) ** 0.5  # five standard errors: a squared projection deviates by sqrt(2) of its mean at most
X = signal(T, B, I, step=0.5)


class Tagger(nn.Module):
    """A head on every output of a stack."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm, self.head = torch_lstm(I, H, **options), nn.Linear(H, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0])


class Last(Tagger):
    """The same on the last output only, beside a tensor that does not count."""

    def forward(self, x: torch.Tensor) -> Any:
        scores = self.head(self.lstm(x)[0][-1])
        return {"scores": scores, "other": x.sum()}


def exact_rows(model: Tagger, x: torch.Tensor, last: bool) -> list[torch.Tensor]:
    """F_r [4H] of every layer from the full Jacobian of the output with respect to added gate pre-activations.

    The LSTM is written out here once more, in float64, independent of the package.
    """
    lstm, head = model.lstm.double(), model.head.double()

    def output(nudges: torch.Tensor) -> torch.Tensor:
        below = list(x.double())
        for layer in range(lstm.num_layers):
            w_ih, w_hh, b_ih, b_hh = lstm.all_weights[layer]
            h = c = torch.zeros(B, H, dtype=torch.float64)
            for t in range(T):
                gates = below[t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh + nudges[layer, t]
                i, f, g, o = gates.chunk(4, dim=1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                below[t] = h = o.sigmoid() * c.tanh()
        scores: torch.Tensor = head(below[-1] if last else torch.stack(below))
        return scores.flatten()

    nudges = torch.zeros(lstm.num_layers, T, B, 4 * H, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(output, nudges)  # [outputs, L, T, B, 4H]
    model.float()
    return list(jacobian.pow(2).sum(0).mean(dim=(1, 2)))


def test_rows_against_the_jacobian() -> None:
    model = Tagger(num_layers=2).eval()
    got = al.measure_sensitivity(al.adapt(model), X, probes=PROBES)
    for rows, want in zip(got.rows, exact_rows(model, X, False), strict=True):
        np.testing.assert_allclose(rows, want.numpy(), rtol=NOISE)


def test_output_picks_what_counts() -> None:
    model = Last().eval()
    fast = al.adapt(model)
    got = al.measure_sensitivity(fast, X, probes=PROBES, output=lambda out: out["scores"])
    np.testing.assert_allclose(got.rows[0], exact_rows(model, X, True)[0].numpy(), rtol=NOISE)
    with pytest.raises(al.AdaptiveLSTMError, match=r"returned dict.*output=lambda"):
        al.measure_sensitivity(fast, X)
    with pytest.raises(al.AdaptiveLSTMError, match="does not depend on any LSTM"):
        al.measure_sensitivity(fast, X, output=lambda out: out["other"])


def test_batches_are_averaged_by_timesteps() -> None:
    class Scaled(Tagger):
        def forward(self, x: torch.Tensor, scale: float = 1.0) -> Any:
            return scale * super().forward(x)

    fast = al.adapt(Scaled(num_layers=2).eval())
    alone = al.measure_sensitivity(fast, X)
    both = al.measure_sensitivity(fast, [(X, 1.0), (X[:4], 0.0)])  # the second batch adds timesteps that feel nothing
    for rows, want in zip(both.rows, alone.rows, strict=True):
        np.testing.assert_allclose(rows, want * T / (T + 4), rtol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"proj_size": 2}, {"batch_first": True}, {"bias": False}]
)
def test_every_kind_of_stack(options: dict[str, Any]) -> None:
    fast = adapted(I, H, 2, **options)
    got = al.measure_sensitivity(fast, X)
    shape = fast.stack_shape
    assert got.shape == shape
    assert [r.shape for r in got.rows] == [(4 * H,)] * shape.num_cells
    assert all((r > 0).any() and np.isfinite(r).all() for r in got.rows)
    # A policy that was made from it fits.
    fast.policy = al.Delta.scaled(got, tau=0.01)
    assert infer(fast, X)[0].isfinite().all()


# ------------------------------------------------------------------------------------------------------ ways to call


def test_the_same_seed_gives_the_same_numbers() -> None:
    fast = al.adapt(Tagger().eval())
    one, two, other = (al.measure_sensitivity(fast, X, seed=seed).rows[0] for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_kinds_of_inputs() -> None:
    fast = al.adapt(Tagger().eval())
    want = al.measure_sensitivity(fast, [X, X]).rows[0]
    assert np.array_equal(al.measure_sensitivity(fast, (x for x in [X, X])).rows[0], want)  # used once only
    assert np.array_equal(al.measure_sensitivity(fast, [(X,), (X,)]).rows[0], want)  # arguments
    packed = pack_padded_sequence(X, torch.tensor([T, 2]))
    lstm = adapted(I, H)
    assert np.array_equal(al.measure_sensitivity(lstm, packed).rows[0], al.measure_sensitivity(lstm, [packed]).rows[0])


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_left_behind(frozen: bool) -> None:
    fast = al.adapt(Tagger().eval()).requires_grad_(not frozen)
    lstm = only_lstm(fast)
    lstm.policy, lstm.quantize = al.Delta.uniform(0.3), al.Quantize("int8")
    want = infer(fast, X)
    before = {k: v.clone() for k, v in fast.state_dict().items()}
    with torch.no_grad():
        measured = al.measure_sensitivity(fast, X)
        assert not torch.is_grad_enabled()
    assert np.array_equal(measured.rows[0], al.measure_sensitivity(al.adapt(fast), X).rows[0])
    with pytest.raises(al.AdaptiveLSTMError, match="got inputs with 4 features"):
        al.measure_sensitivity(fast, torch.zeros(T, B, I + 1))
    assert all(p.grad is None for p in fast.parameters())
    assert_equal(list(fast.state_dict().values()), list(before.values()))
    assert "forward" not in vars(lstm)
    assert_equal(infer(fast, X), want)


def test_several_lstms() -> None:
    fast = al.adapt(nn.ModuleDict({"a": nn.LSTM(I, H), "b": nn.LSTM(H, H, 2)}).eval())

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stacks = fast

        def forward(self, x: torch.Tensor) -> Any:
            return self.stacks.get_submodule("b")(self.stacks.get_submodule("a")(x)[0])[0]

    model = Both().eval()
    with pytest.raises(al.AdaptiveLSTMError, match=r"2 LSTMs \(stacks\.a, stacks\.b\); use measure_sensitivities"):
        al.measure_sensitivity(model, X)
    measured = al.measure_sensitivities(model, X)
    assert {name: s.shape.num_layers for name, s in measured.items()} == {"stacks.a": 1, "stacks.b": 2}
    assert all((r > 0).any() for s in measured.values() for r in s.rows)


def test_refusals() -> None:
    fast = al.adapt(Tagger().eval())
    for model, inputs, probes, message in (
        (nn.LSTM(I, H), X, 8, "no AdaptiveLSTM"),
        (fast, [], 8, "no batches"),
        (fast, X, 0, "probes: got 0"),
        (fast, X, 2**70, "at most 10,000"),
        (fast, X * torch.nan, 8, "NaN or infinity"),
        (al.adapt(Tagger()).train(), X, 8, "training mode"),
    ):
        with pytest.raises(al.AdaptiveLSTMError, match=message):
            al.measure_sensitivity(model, inputs, probes=probes)


# -------------------------------------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize(("gamma", "power"), [(0.5, 1.0), (0.0, 1.0), (1.0, 0.5), (0.5, 0.0)])
def test_scaled_thresholds_by_the_formula(gamma: float, power: float) -> None:
    fast = al.adapt(Tagger(num_layers=2).eval())
    measured, tau = al.measure_sensitivity(fast, X), 0.02
    weights = [only_lstm(fast).all_weights[layer] for layer in range(2)]
    saliency = [
        np.sqrt(measured.rows[layer] ** gamma @ weights[layer][which].detach().double().numpy() ** 2)
        for layer, which in ((0, 1), (1, 0), (1, 1))  # all operands but the raw features
    ]
    mean = np.concatenate(saliency).mean()
    policy = al.Delta.scaled(measured, tau, gamma=gamma, power=power)
    shape = only_lstm(fast).stack_shape
    assert policy.threshold(al.Site(shape, 0, "x")) is None
    for site, s in zip((al.Site(shape, 0, "h"), al.Site(shape, 1, "x"), al.Site(shape, 1, "h")), saliency, strict=True):
        threshold = policy.threshold(site)
        assert threshold is not None
        np.testing.assert_allclose(threshold, tau * (mean / s) ** power, rtol=1e-5)


def test_scaled_defaults_and_zero() -> None:
    fast = al.adapt(Tagger(num_layers=2).eval())
    measured = al.measure_sensitivity(fast, X)
    assert al.Delta.scaled(measured, 0.01) == al.Delta.scaled(measured, 0.01, gamma=0.5, power=1.0)
    lstm = only_lstm(fast)
    want = infer(lstm, X)
    lstm.policy = al.Delta.scaled(measured, 0.0)
    assert_equal(infer(lstm, X), want)
    for bad in (
        {"tau": -1.0},
        {"tau": np.nan},
        {"tau": np.inf},
        {"tau": 1.0, "gamma": np.nan},
        {"tau": 1.0, "power": np.inf},
    ):
        with pytest.raises(al.AdaptiveLSTMError, match="expected"):
            al.Delta.scaled(measured, **bad)
