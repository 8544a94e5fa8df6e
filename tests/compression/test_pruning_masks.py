"""Masks: exactly the asked sparsity and pattern, and the refusals of settings that cannot work."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from adaptive_lstm.analysis.moments import Moments
from adaptive_lstm.compression.pruning.masks import CellData, Recipe, weight_masks
from adaptive_lstm.compression.pruning.patterns import cheapest, n_of_m
from adaptive_lstm.compression.pruning.settings import Prune
from adaptive_lstm.compression.pruning.units import live_units, unit_masks
from adaptive_lstm.errors import InputError
from adaptive_lstm.types import StackShape

RECIPE = Recipe("second-order", 0.5, "refit", 0.1, 0)


def stack(shape: StackShape, *, raw: bool = False) -> list[CellData]:
    """Random weights, operands and sensitivities of every cell."""
    rng = np.random.default_rng(0)
    out = []
    for cell in range(shape.num_cells):
        width = shape.input_width(cell)
        columns, rows = width + shape.output_size, 4 * shape.hidden_size
        root = rng.normal(size=(columns, columns))
        cov, mean = root @ root.T / columns, rng.normal(size=columns)
        may = np.ones(columns, dtype=bool)
        may[:width] = raw or cell >= shape.directions
        sensitivity = rng.random(rows) ** 4
        weights = rng.normal(size=(rows, columns))
        out.append(CellData(weights, np.zeros(rows), width, may, Moments(mean, cov, mean, cov), sensitivity, None))
    return out


def shares(keep: Sequence[np.ndarray], data: Sequence[CellData]) -> tuple[int, int]:
    """Weights removed, and weights that may be."""
    gone = sum(int((~mask).sum()) for mask in keep)
    assert all(mask[:, ~d.prunable].all() for mask, d in zip(keep, data, strict=True)), "raw columns stay"
    return gone, sum(len(d.w) * int(d.prunable.sum()) for d in data)


@pytest.mark.parametrize("saliency", ["second-order", "obs"])
@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_unstructured_is_exact(saliency: Any, allocation: Any, sparsity: float) -> None:
    data = stack(StackShape(5, 12, 2, bidirectional=True))
    prune = Prune(sparsity=sparsity, saliency=saliency, allocation=allocation)
    keep = weight_masks(prune, Recipe(saliency, 0.5, "refit", 0.1, 0), data)
    gone, possible = shares(keep, data)
    assert abs(gone - sparsity * possible) <= (0.5 if allocation == "global" else 0.5 * 2 * len(data))
    if allocation == "uniform":
        for mask, d in zip(keep, data, strict=True):
            for columns in d.matrices:
                if d.prunable[columns].all():
                    size = mask[:, columns].size
                    assert abs((~mask[:, columns]).sum() - sparsity * size) <= 0.5


@pytest.mark.parametrize("pattern", ["2:4", "3:4", "4:8", "1:16"])
@pytest.mark.parametrize("saliency", ["second-order", "obs"])
def test_n_of_m_holds_in_every_group(pattern: str, saliency: Any) -> None:
    data = stack(StackShape(5, 18, 2), raw=True)  # 18 columns: the last group is partial
    prune = Prune(pattern, saliency=saliency, raw=True)
    n, m = prune.n_of_m or (0, 0)
    assert prune.sparsity == 1 - n / m
    for mask, d in zip(weight_masks(prune, Recipe(saliency, 0.5, "refit", 0.1, 0), data), data, strict=True):
        for columns in d.matrices:
            part = mask[:, columns]
            for start in range(0, part.shape[1], m):
                group = part[:, start : start + m]
                assert (group.sum(axis=1) == -(-n * group.shape[1] // m)).all()


def test_n_of_m_keeps_the_largest() -> None:
    scores = np.array([[4.0, 1, 3, 2, 9, 8]])
    assert n_of_m(scores, 2, 4).tolist() == [[True, False, True, False, True, False]]


@pytest.mark.parametrize("block", [(64, 1), (64, 2), (8, 1), (5, 3)])
def test_blocks_are_whole(block: tuple[int, int]) -> None:
    data = stack(StackShape(5, 40, 2))  # two blocks and a half of 16 units
    keep = weight_masks(Prune("block", 0.4, block=block), RECIPE, data)
    for mask, d in zip(keep, data, strict=True):
        for columns in d.matrices:
            part = mask[:, columns].reshape(4, 40, -1)
            if block == (64, 1):  # three strips a gate, four to a block
                strips = part[:, ::16].reshape(3, 4, -1)
                assert (strips == strips[:, :1]).all()
            height = 16 if block == (64, 1) else block[0]
            for row in range(0, 40, height):
                for column in range(0, part.shape[2], block[1]):
                    for gate in part[:, row : row + height, column : column + block[1]]:
                        assert gate.all() or not gate.any()
    gone, possible = shares(keep, data)
    assert abs(gone - 0.4 * possible) <= block[0] * block[1]


def test_columns_are_whole() -> None:
    data = stack(StackShape(5, 12, 2))
    keep = weight_masks(Prune("column", 0.25), RECIPE, data)
    assert all((mask == mask[:1]).all() for mask in keep)
    gone, possible = shares(keep, data)
    assert gone == 48 * round(0.25 * possible / 48)


@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("shape", [StackShape(5, 12, 3), StackShape(5, 12, 2, bidirectional=True)])
def test_units_go_with_all_that_reads_them(allocation: Any, shape: StackShape) -> None:
    data = stack(shape)
    (lives,) = live_units(Prune("unit", 0.25, allocation=allocation), RECIPE, [shape], [data])
    assert sum(int((~one).sum()) for one in lives) == 3 * shape.num_cells
    if allocation == "uniform":
        assert all(one.sum() == 9 for one in lives)
    keep = unit_masks(shape, lives, data)
    for cell, mask in enumerate(keep):
        below = [lives[p] for p in range(shape.num_cells) if p // shape.directions == cell // shape.directions - 1]
        read = np.concatenate([*(below or [np.ones(5, dtype=bool)]), lives[cell]])
        assert (mask == np.tile(lives[cell], 4)[:, None] & read).all()


def test_every_pair_keeps_a_unit() -> None:
    shape = StackShape(5, 4, 2)
    (lives,) = live_units(Prune("unit", 0.9), RECIPE, [shape], [stack(shape)])
    assert [int(one.sum()) for one in lives] == [1, 1]


def test_cheapest_takes_the_price_per_weight() -> None:
    scores, sizes = [np.array([4.0, 1.0]), np.array([3.0])], [np.array([8.0, 1.0]), np.array([0.0])]
    assert [k.tolist() for k in cheapest(scores, sizes, 0.9)] == [[False, True], [True]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "rows"}, "pattern: got 'rows', expected one of unstructured"),
        ({"pattern": "N:M"}, "pattern: got 'N:M', expected numbers"),
        ({"pattern": "4:4"}, "expected N:M with 0 < N < M"),
        ({"pattern": "0:4"}, "expected N:M with 0 < N < M"),
        ({"pattern": "2:4", "sparsity": 0.9}, "sparsity: got 0.9 with pattern '2:4', which removes 0.5"),
        ({"pattern": "1:3", "sparsity": 0.66}, "sparsity: got 0.66 with pattern '1:3', which removes 0.666667"),
        ({"sparsity": 1.0}, "sparsity: got 1.0"),
        ({"sparsity": float("nan")}, "sparsity: got nan"),
        ({"sparsity": True}, "sparsity: got True"),
        ({"gamma": 1.5}, "gamma: got 1.5"),
        ({"ridge": -1.0}, "ridge: got -1.0"),
        ({"block": (64,)}, "block: got"),
        ({"block": (0, 1)}, "block: got"),
        ({"saliency": "random"}, "saliency: got 'random', expected one of auto"),
        ({"compensate": "train"}, "compensate: got 'train', expected one of auto"),
        ({"allocation": "local"}, "allocation: got 'local', expected one of uniform"),
        ({"raw": 1}, "raw: got 1"),
        ({"pattern": "layer", "saliency": "obs"}, "saliency: got 'obs' with pattern 'layer'"),
        ({"pattern": "unit", "saliency": "obs"}, "saliency: got 'obs' with pattern 'unit'"),
        ({"saliency": "obs", "compensate": "none"}, "compensate: got 'none' with saliency 'obs'"),
        ({"pattern": "layer", "compensate": "mean"}, "compensate: got 'mean' with pattern 'layer'"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Prune(**settings)
    assert message in str(caught.value)


def test_what_is_removed_by_default() -> None:
    assert Prune().sparsity == 0.5
    assert Prune("3:4") == Prune("3:4", 0.25)
