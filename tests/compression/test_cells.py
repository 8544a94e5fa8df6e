"""Models with LSTM cells: adapted, compressed, saved, loaded and calibrated like any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.deploy import load as deployed

from ..support.cells import Decoder, LastState, adapted, cell_of
from ..support.helpers import assert_close, assert_equal, infer

INPUTS = [torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(n)) for n in range(6)]


def decoder() -> nn.Module:
    torch.manual_seed(0)
    return Decoder().eval()


class Whole(nn.Module):
    """The last output of an LSTM with the weights of a cell."""

    def __init__(self, cell: nn.LSTMCell):
        super().__init__()
        self.lstm = nn.LSTM(cell.input_size, cell.hidden_size, batch_first=True)
        self.lstm.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.lstm(x)[0]
        return y[:, -1]


def cells(model: nn.Module) -> list[al.AdaptiveLSTMCell]:
    return [m for m in model.modules() if isinstance(m, al.AdaptiveLSTMCell)]


def test_a_decoder_is_exact_in_int8_and_after_a_file(tmp_path: Path) -> None:
    model = decoder()
    fast = al.adapt(model)
    assert len(cells(fast)) == 2
    assert [name for name, _ in fast.named_modules()] == [name for name, _ in model.named_modules()]
    for x in INPUTS:
        assert_close(infer(fast, x), infer(model, x), "fp32")
    report = al.compress(fast, INPUTS, quantize=al.Quantize("int8"))
    assert [one.name for one in report.lstms] == ["encoder", "cells.0", "cells.1"]
    assert report.bytes_after < report.bytes_before / 2
    assert {cell.quantize.precision for cell in cells(fast)} == {"int8"}
    for weights in (False, True):
        al.save(fast, tmp_path / "model", weights=weights)
        again = al.load(tmp_path / "model", model)
        assert [type(m) for m in cells(again)] == [al.AdaptiveLSTMCell] * 2
        assert_equal([infer(again, x) for x in INPUTS], [infer(fast, x) for x in INPUTS])
    al.restore(fast)
    assert_close(infer(fast, INPUTS[0]), infer(model, INPUTS[0]), "fp32")


def test_files_of_cells_are_not_those_of_lstms(tmp_path: Path) -> None:
    cell = cell_of(6, 9)
    al.save(adapted(cell, "int8"), tmp_path / "cell", weights=True)
    again: Any = al.load(tmp_path / "cell", cell)
    assert again.quantize.precision == "int8"
    with pytest.raises(al.errors.ModelFileError, match="one_step"):
        al.load(tmp_path / "cell", nn.LSTM(6, 9).eval())
    x, h, c = torch.randn(1, 6), torch.randn(1, 9), torch.randn(1, 9)
    y, (h_1, c_1), *_ = deployed(tmp_path / "cell").lstm.run(x[None].numpy(), (h[None].numpy(), c[None].numpy()))
    expected = infer(adapted(cell, "int8"), x, (h, c))
    assert_equal((torch.from_numpy(h_1[0]), torch.from_numpy(c_1[0])), expected)
    assert_equal(torch.from_numpy(y[0]), expected[0])


@pytest.mark.parametrize(
    "options",
    [
        {"prune": al.Prune("unstructured", 0.5)},
        {"prune": al.Prune("unit", 0.25), "quantize": al.Quantize("int8")},
        {"rounding": "compensated", "quantize": al.Quantize("int8")},
    ],
    ids=["pruned", "units", "compensated"],
)
def test_what_is_measured_for_compression(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Decoder(hidden=40).eval()
    fast = al.adapt(model)
    al.compress(fast, INPUTS, **options, progress=False)
    assert all(cell.replaced is not None for cell in cells(fast))
    out = infer(fast, INPUTS[0])
    assert out.shape == (2, 4, 5)
    assert bool(torch.isfinite(out).all())
    al.save(fast, tmp_path / "model")
    assert_equal(infer(al.load(tmp_path / "model", model), INPUTS[0]), out)
    assert list(fast.state_dict()) == list(model.state_dict())


def test_gradients_pass_from_call_to_call() -> None:
    """What the last state depends on is measured as it is of an LSTM that is given the whole sequence."""
    cell = cell_of(4, 6)
    whole, stepped = al.adapt(Whole(cell).eval()), al.adapt(LastState(cell).eval())
    batches = [torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    ours, theirs = (al.measure_sensitivity(model, batches, progress=False) for model in (stepped, whole))
    assert ours.steps == theirs.steps
    np.testing.assert_allclose(ours.rows[0], theirs.rows[0], rtol=1e-4)
    np.testing.assert_allclose(ours.moments[0], theirs.moments[0], rtol=1e-4, atol=1e-7)


def test_calibration_leaves_cells_as_they_are() -> None:
    fast: Any = al.adapt(decoder())
    al.compress(fast, quantize=al.Quantize("int8"))
    torch.manual_seed(0)
    sequences = list(torch.randn(240, 7, 6).split(1))
    found = al.calibrate(
        fast,
        sequences,
        loss=al.losses.disagreement,
        max_loss=0.5,
        confidence=0.9,
        policies=[al.Delta, al.SkipTimesteps],
        objective="macs",
        progress=False,
    )
    found.apply(fast, force=True)
    assert {type(cell.policy) for cell in cells(fast)} == {al.Dense}
    assert type(fast.encoder.policy) is not al.Dense


def test_a_model_of_cells_alone_cannot_be_calibrated() -> None:
    fast = al.adapt(nn.Sequential(cell_of(6, 9)).eval())
    with pytest.raises(al.errors.InputError, match=r"LSTM cells alone \(0\).*compress"):
        al.calibrate(fast, list(INPUTS), loss=al.losses.disagreement, max_loss=0.5, confidence=0.9)


def test_a_model_that_shares_a_cell() -> None:
    cell = cell_of(6, 6)
    fast: Any = al.adapt(nn.ModuleDict({"a": cell, "b": cell}).eval())
    assert fast["a"] is fast["b"]
    assert [one.name for one in al.report(fast).lstms] == ["a"]
    al.warm_up(fast, [(2, 9)])
    assert fast["a"].last_run is None
