"""Losses by hand: decisions, distances and errors of outputs of every shape, in [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from adaptive_lstm.errors import InputError
from adaptive_lstm.losses import (
    Loss,
    Sizes,
    accuracy_drop,
    as_loss,
    clipped_error,
    cosine_distance,
    disagreement,
    sign_disagreement,
)

A = torch.tensor([[0.2, 0.9, -1.0]])  # decides for 1
B = torch.tensor([[0.3, 0.1, -1.0]])  # decides for 0
STEPS = torch.stack([A[0], A[0], B[0], B[0]])[None]  # [1, 4, 3]


@pytest.mark.parametrize(
    ("output", "dense", "wanted"),
    [
        (A, A, 0.0),
        (A, B, 1.0),
        (A[0], B[0], 1.0),
        (A[0], A[0] + 1, 0.0),
        (A[:, None], B[:, None], 1.0),
        (STEPS, STEPS.flip(1), 1.0),
        (STEPS, A.expand(1, 4, 3), 0.5),
        (STEPS[:, 1:], STEPS[:, :-1], 1 / 3),
        ((A, "state"), (B, "state"), 1.0),
        ([(STEPS, 1), 2], [(A.expand(1, 4, 3), 1), 2], 0.5),
        (torch.tensor([[0.5]]), torch.tensor([[-0.5]]), 1.0),
        (torch.tensor([[0.5]]), torch.tensor([[2.0]]), 0.0),
        (torch.tensor([[[0.5], [-1.0]]]), torch.tensor([[[0.5], [0.1]]]), 0.5),
    ],
)
def test_disagreement(output: Any, dense: Any, wanted: float) -> None:
    assert disagreement.of(output, dense, None) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("output", "dense", "target", "wanted"),
    [
        (A, A, 1, 0.0),
        (A, A, 0, 0.0),  # both wrong: nothing is lost
        (B, A, 1, 1.0),
        (B, A, 0, 0.0),  # better than before: counts as nothing
        (B, A, torch.tensor([1]), 1.0),
        (B, A, np.array([[1]]), 1.0),
        (STEPS, STEPS.flip(1), [0, 0, 1, 1], 1.0),
        (STEPS, STEPS.flip(1), [0, 1, 1, 0], 0.5),
        (torch.tensor([[-1.0]]), torch.tensor([[1.0]]), 1, 1.0),
        (torch.tensor([[-1.0]]), torch.tensor([[1.0]]), True, 1.0),
        (torch.tensor([[-1.0]]), torch.tensor([[1.0]]), 0, 0.0),
    ],
)
def test_accuracy_drop(output: Any, dense: Any, target: Any, wanted: float) -> None:
    assert accuracy_drop.of(output, dense, target) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("target", "message"), [(None, r"\(inputs, target\)"), ([1, 0], "1 decision"), ("dog", "'dog'")]
)
def test_targets_that_do_not_fit(target: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        accuracy_drop.of(A, B, target)


def test_cosine_distance() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert cosine_distance.of(x, 3 * x, None) == pytest.approx(0.0, abs=1e-12)
    assert cosine_distance.of(y, x, None) == pytest.approx(1 - math.sqrt(0.5), rel=1e-6)
    assert cosine_distance.of(-x, x, None) == 1.0  # clipped: it would be 2
    both = torch.stack([x, y], dim=1)
    assert cosine_distance.of(both, x.expand(1, 2, 2), None) == pytest.approx((1 - math.sqrt(0.5)) / 2, rel=1e-6)
    assert cosine_distance.of((x, None), (y, None), None) == pytest.approx(1 - math.sqrt(0.5), rel=1e-6)


def test_clipped_error() -> None:
    half = clipped_error(2.0)
    assert half.of(A + 1, A, None) == pytest.approx(0.5)
    assert half.of(A + torch.tensor([[0.0, 0.0, 3.0]]), A, None) == pytest.approx(0.5)
    assert half.of(A - 9, A, None) == 1.0
    assert half.of((A + 1, 0), (A, 0), None) == pytest.approx(0.5)
    assert math.isnan(half.of(A * math.nan, A, None))  # refused by the calibrator, not hidden
    assert half.name == "clipped_error(2)"
    for scale in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="scale"):
            clipped_error(scale)


@pytest.mark.parametrize("loss", [disagreement, accuracy_drop])
@pytest.mark.parametrize(
    ("dense", "wanted"),
    [(A, True), (A[0], True), (A[None], True), (STEPS, False), (STEPS[:, :1], True), (A.expand(2, 3), False)],
)
def test_binary_by_structure(loss: Loss, dense: torch.Tensor, wanted: bool) -> None:
    assert loss.binary(dense) is wanted
    assert loss.binary((dense * 0, None)) is wanted  # whatever the values


def test_bounded_by_structure() -> None:
    for loss in (cosine_distance, clipped_error(1.0), as_loss(lambda output, dense, target: 0.0)):
        assert not loss.binary(A)


@pytest.mark.parametrize("loss", [disagreement, accuracy_drop])
def test_probabilities_have_no_sign(loss: Loss) -> None:
    one = torch.tensor([[0.3]])
    with pytest.raises(InputError, match="probabilities"):
        loss.check([one, one + 0.6, (one, None)], [])
    loss.check([one, one - 1], [])
    loss.check([A.softmax(1)] * 3, [])  # of several, the largest wins


@pytest.mark.parametrize("loss", [disagreement, accuracy_drop, cosine_distance])
@pytest.mark.parametrize(
    ("shape", "rows", "steps"),
    [
        ((1, 30), 1, 30),  # a logit per timestep, squeezed
        ((30,), 1, 30),
        ((4, 30), 4, 30),
        ((30, 30), 30, 30),
        ((30, 4), 4, 30),  # time first
        ((4,), 4, 30),  # a logit per row, squeezed
        ((1, 1, 30), 1, 30),
    ],
)
def test_shapes_that_can_be_read_in_two_ways_are_refused(
    loss: Loss, shape: tuple[int, ...], rows: int, steps: int
) -> None:
    outputs = [torch.randn(shape) for _ in range(3)]
    with pytest.raises(InputError, match=r"may be time or batch rows, or classes.*sign_disagreement"):
        loss.check(outputs, [Sizes(steps, rows)] * 3)
    loss.unchecked().check(outputs, [Sizes(steps, rows)] * 3)


@pytest.mark.parametrize("loss", [disagreement, cosine_distance])
@pytest.mark.parametrize(
    ("shape", "rows", "steps"),
    [((1, 3), 1, 30), ((4, 3), 4, 30), ((1, 30, 3), 1, 30), ((1, 30, 30), 1, 30), ((30, 4, 30), 4, 30), ((3,), 1, 30)],
)
def test_shapes_that_name_their_classes_are_taken(loss: Loss, shape: tuple[int, ...], rows: int, steps: int) -> None:
    loss.check([torch.randn(shape) for _ in range(3)], [Sizes(steps, rows)] * 3)


def test_a_last_dimension_that_varies_is_no_class() -> None:
    outputs = [torch.randn(1, n) for n in (5, 9)]
    with pytest.raises(InputError, match="sizes from 5 to 9"):
        disagreement.check(outputs, [])
    classes = [torch.randn(1, 10) for _ in range(2)]  # one sequence happens to have as many timesteps
    disagreement.check(classes, [Sizes(10, 1), Sizes(12, 1)])


def test_every_sign_is_a_decision() -> None:
    a, b = torch.tensor([[1.0, -1.0, 2.0, 3.0]]), torch.tensor([[1.0, 1.0, 2.0, -3.0]])
    assert sign_disagreement.of(a, b, None) == 0.5
    assert not sign_disagreement.binary(a)
    assert sign_disagreement.binary(a[:, :1])
    with pytest.raises(InputError, match="probabilities"):
        sign_disagreement.check([a.sigmoid(), b.sigmoid()], [])


def test_the_cosine_of_one_number_is_its_sign() -> None:
    with pytest.raises(InputError, match=r"size 1.*clipped_error"):
        cosine_distance.check([torch.randn(1, 1)] * 2, [])


@pytest.mark.parametrize("loss", [disagreement, sign_disagreement, cosine_distance, clipped_error(1.0)])
def test_outputs_of_two_shapes_are_not_compared(loss: Loss) -> None:
    with pytest.raises(InputError, match="expected one shape"):
        loss.of(STEPS, STEPS[:, :2], None)


def test_a_loss_reads_what_it_is_told_to() -> None:
    def logits(out: Any) -> torch.Tensor:
        found: torch.Tensor = out["logits"]
        return found

    loss = disagreement.reading(logits)
    assert loss.of({"x": 0, "logits": A}, {"x": 1, "logits": B}, None) == 1.0
    assert loss.binary({"logits": A})
    with pytest.raises(InputError, match="may be time"):
        loss.check([{"logits": torch.randn(1, 9)}], [Sizes(9, 1)])
    own = as_loss(lambda output, dense, target: 0.0)
    assert own.reading(logits) is own


def test_as_loss() -> None:
    def own(output: Any, dense: Any, target: Any) -> float:
        return 0.25

    assert as_loss(disagreement) is disagreement
    assert (as_loss(own).name, as_loss(own).of(A, A, None)) == ("own", 0.25)
    with pytest.raises(InputError, match="expected a function"):
        as_loss(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("output", [torch.tensor([1, 2]), "text", {}, (), None, [[]]])
def test_outputs_without_a_float_tensor(output: Any) -> None:
    with pytest.raises(InputError, match="no float tensor"):
        disagreement.of(output, output, None)
