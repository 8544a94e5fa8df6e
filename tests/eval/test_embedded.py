"""The costs of exported C: every run is exact, what is skipped saves instructions, rivals compute the same LSTM."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from eval.embedded import __main__ as embedded
from eval.embedded import int8, rivals
from eval.embedded.models import ACTIVITIES, activity, inputs, models
from eval.embedded.verdict import judge
from eval.shared.common import TOLERANCE

from ..support.c_builds import require_emulator
from ..support.eval_records import Run, of
from ..support.helpers import torch_lstm


@pytest.mark.slow
def test_embedded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    require_emulator("m4")
    monkeypatch.setattr(rivals, "present", lambda checkouts: {})
    found = of(run(embedded.main, "--models", "1 x 32", "--processors", "m4"), "1 x 32")
    assert all(record["exact"] for record in found.values())
    dense, half, fifth = (found[f"m4 int8 {share:g}"] for share in ACTIVITIES)
    assert dense["activity"] == 1
    assert abs(half["activity"] - 0.5) < 0.05
    assert abs(fifth["activity"] - 0.2) < 0.05
    assert fifth["instructions"] < half["instructions"]
    assert dense["instructions"] < found["m4 fp32 1"]["instructions"]
    assert all(record["code"] < 12 * 1024 and record["stack"] < 2048 for record in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_rival_computes_the_same(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_emulator("m4")
    if find_spec("emx_onnx_cgen") is None:
        pytest.skip("emx-onnx-cgen is not installed")
    given = ("emx-onnx-cgen", torch_lstm(5, 8, 2, batch_first=True), inputs(5), precision, "m4", Path())
    found = rivals.measured(*given)
    assert found["instructions"] > 2 * 4 * 8 * 8
    assert found["weights"] >= (4 if precision == "fp32" else 1) * 4 * 8 * (5 + 8 + 8 + 8)
    assert found["state"] == 2 * 2 * 2 * 8 * 4  # h and c of two layers, in and out
    assert min(found["code"], found["stack"]) > 0
    monkeypatch.setitem(TOLERANCE, precision, 0.0)
    with pytest.raises(ValueError, match=f"emx-onnx-cgen, {precision}: outputs differ from torch's by"):
        rivals.measured(*given)


def test_int8_gates_are_those_of_torch() -> None:
    lstm, x = torch_lstm(5, 8, 2), inputs(5)
    layers = int8.quantized(lstm, x)
    assert [len(layer) for layer in layers] == [4, 4]
    for n, layer in enumerate(layers):
        for name, key in (("weight_ih", "input"), ("weight_hh", "hidden")):
            parts = [getattr(gate, key) * getattr(gate, f"{key}_scale") for gate in layer]
            steps = max(getattr(gate, f"{key}_scale") for gate in layer)
            apart = torch.from_numpy(np.concatenate(parts)) - getattr(lstm, f"{name}_l{n}")
            assert apart.abs().max() <= 0.5001 * steps
    assert layers[0][0].x_scale == pytest.approx(np.abs(x).max() / 127)
    assert layers[1][0].x_scale == 2**-7
    assert int8.header(layers).count("int8_t hidden_") == 8


@pytest.mark.parametrize(
    ("name", "library"), [("CMSIS-NN", "libcmsis-nn.a"), ("tflite-micro", "libtensorflow-microlite.a")]
)
def test_a_checkout_without_libraries_is_named(name: str, library: str, tmp_path: Path) -> None:
    lstm = nn.LSTM(3, 4, batch_first=True)
    order = rivals.Order(lstm, inputs(3), "int8", "m4", str(tmp_path), tmp_path)
    with pytest.raises(ValueError, match=rf"{name}: no library .*/{library}"):
        rivals.RIVALS[name].program(order)


def test_rivals_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkouts = {"CMSIS-NN": tmp_path, "tflite-micro": None}
    for installed in (False, True):
        monkeypatch.setattr(rivals, "find_spec", lambda name, found=installed: found or None)
        assert set(rivals.present(checkouts)) == {"CMSIS-NN"} | ({"emx-onnx-cgen"} if installed else set())


def test_goals() -> None:
    def record(who: str, wanted: float, activity: float, instructions: float, **more: Any) -> dict[str, Any]:
        found = {"who": who, "wanted": wanted, "activity": activity, "instructions": instructions, "stack": 2048}
        return {"group": "1 x 32", "processor": "Cortex-M4", "precision": "int8", "code": 9000} | found | more

    dense, half = record("adaptive-lstm", 1, 1, 700), record("adaptive-lstm", 0.5, 0.5, 434)
    rivals_ = [record("slow", 1, 1, 5000), record("fast", 1, 1, 1000), record("floats", 1, 1, 9, precision="fp32")]
    judged = list(judge([dense, half, *rivals_]))
    assert [one.verdict for one in judged] == ["PASS"] * 4
    assert [one.rival for one in judged] == ["fast", None, None, None]
    assert judged[0].told == "0.700 of 0.700"
    missed = list(
        judge([dense | {"instructions": 701}, half | {"activity": 0.4, "stack": 2049, "code": 12289}, *rivals_])
    )
    assert [one.verdict for one in missed] == ["MISS"] * 4
    assert [one.goal for one in judge([dense])] == ["RAM beyond the state", "bytes of code"]
    assert list(judge(rivals_)) == []


def test_the_zoo_has_one_too(zoo: Path) -> None:
    (one,) = models((), zoo)
    assert (one.name, one.x.shape) == ("turbofan 2 x 64", (30, 17))
    assert abs(activity(one.exported("int8", 0.5), one.x) - 0.5) < 0.05
    assert [precision for precision, _ in one.settings()] == ["fp32", "int8", "int8", "int8"]


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="not installed: arm-none-eabi-gcc, qemu-system-arm"):
        embedded.main(["--processors", "m4"])
