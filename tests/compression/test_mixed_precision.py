"""Precisions chosen by sensitivity: budgets hold, and what matters gets the bits."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.compression.mixed_precision import mixed_precision
from adaptive_lstm.weights.quantization import to_int8

from ..support.helpers import adapted, executed_weights, infer, signal

X = signal(30, 4, 6)


def sensitivity() -> al.Sensitivity:
    fast = adapted(6, 20, 2)
    with torch.no_grad():
        cast("torch.Tensor", fast.weight_hh_l1)[:, 3] *= 30  # rows with one huge weight round the others away
    return al.measure_sensitivity(fast, X)


def size_of(quantize: al.Quantize, found: al.Sensitivity) -> float:
    shape, sizes = found.shape, {"int8": 1, "bf16": 2, "fp32": 4}
    weights = {
        (kind, cell): w.size
        for cell, both in enumerate(found.weights)
        for kind, w in zip(("weight_ih", "weight_hh"), both, strict=True)
    }
    return sum(n * sizes[quantize.of(shape, *key)] for key, n in weights.items()) / (4 * sum(weights.values()))


@pytest.mark.parametrize("size", [0.45, 0.6, 1.0])
@pytest.mark.parametrize("proj_size", [0, 7])
def test_the_budget_of_bytes_holds(size: float, proj_size: int) -> None:
    """By what the report counts: projections and scales too."""
    fast = adapted(6, 20, 2, proj_size=proj_size)
    found = al.measure_sensitivity(fast, X)
    chosen = mixed_precision(found, size=size)
    report = al.compress(fast, quantize=chosen)
    before, after = (sum(getattr(m, each) for m in report.matrices) for each in ("bytes_before", "bytes_after"))
    assert after <= size * before
    if size == 1.0:
        assert all(p == "fp32" for p in chosen.matrices.values())


def test_more_bytes_never_cost_quality_and_the_worst_matrix_comes_first() -> None:
    found = sensitivity()
    fast = adapted(6, 20, 2)
    with torch.no_grad():
        cast("torch.Tensor", fast.weight_hh_l1)[:, 3] *= 30
    exact, errors = infer(fast, X)[0], []
    for size in (0.35, 0.55, 0.7, 1.0):
        al.compress(fast, quantize=mixed_precision(found, size=size))
        errors.append(float((infer(fast, X)[0] - exact).pow(2).mean()))
    assert errors[-1] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert mixed_precision(found, size=0.45).matrices["weight_hh_l1"] != "int8"


def test_the_budget_of_error_takes_the_fewest_bytes() -> None:
    found = sensitivity()
    sizes = [size_of(mixed_precision(found, error=error), found) for error in (1.0, 1e-3, 1e-4, 0.0)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.35
    assert sizes[-1] == 1.0


def test_refusals() -> None:
    found = sensitivity()
    two: list[Any] = [{}, {"size": 0.5, "error": 0.1}]
    for wrong in two:
        with pytest.raises(al.AdaptiveLSTMError, match="give one budget"):
            mixed_precision(found, **wrong)
    with pytest.raises(al.AdaptiveLSTMError, match=r"size: got 0.2, expected at least 0.3\d+"):
        mixed_precision(found, size=0.2)
    with pytest.raises(al.AdaptiveLSTMError, match="error: got -1"):
        mixed_precision(found, error=-1)


@pytest.mark.parametrize("largest", [127, 100, 64])
def test_a_grid_from_training_is_kept(largest: int) -> None:
    """Fake quantization leaves multiples of a step; a new scale would round them all again."""
    steps = np.random.default_rng(0).integers(-largest, largest + 1, (40, 64)).astype(np.float32)
    steps[:, 5] = largest
    step = np.random.default_rng(1).uniform(1e-3, 1e-2, (40, 1)).astype(np.float32)
    values, scale = to_int8(steps * step)
    np.testing.assert_array_equal(values, steps)
    np.testing.assert_allclose(scale[:, None], step, rtol=1e-6)


def test_weights_only() -> None:
    """With levels of 0 activations stay floats: only weights are rounded."""
    fast, whole = adapted(6, 20, 2), adapted(6, 20, 2)
    al.compress(fast, quantize=al.Quantize("int8", levels=0, input_levels=0))
    with torch.no_grad():
        for cell, w in enumerate(executed_weights(fast)):
            getattr(whole, f"weight_ih_l{cell}").copy_(w.w_ih)
            getattr(whole, f"weight_hh_l{cell}").copy_(w.w_hh)
    torch.testing.assert_close(infer(fast, X)[0], infer(whole, X)[0], rtol=0, atol=2e-6)
    al.compress(fast, quantize=al.Quantize("int8", levels=16, input_levels=16))
    assert (infer(fast, X)[0] - infer(whole, X)[0]).abs().max() > 1e-3
