"""A file with weights: as small as the report says, the same model again, and read without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.artifact.stacks import read_stacks
from adaptive_lstm.weights.grid import on_grid
from adaptive_lstm.weights.quantization import quantize_matrix

from ..support.artifact_cases import certificate_of, prune, read_file, tagger, write_file
from ..support.helpers import assert_equal, infer, signal, torch_lstm

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = {
    "fp32": al.Quantize(),
    "int8": al.Quantize("int8"),
    "bf16": al.Quantize("bf16"),
    "int8 everywhere": al.Quantize("int8", raw="int8", raw_range="dynamic"),
    "ranges": al.Quantize("int8", raw="int8", raw_scale=(1.0, 2.5, 0.1, 3e-9, 7.0), levels=127),
    "weights only": al.Quantize("int8", levels=0),
}


def adapted(quantize: al.Quantize, *, pruned: bool, hidden: int = 40) -> tuple[torch.nn.LSTM, al.AdaptiveLSTM]:
    original = torch_lstm(5, hidden, 2)
    fast = al.AdaptiveLSTM.from_lstm(original).eval()
    fast.quantize, fast.policy = quantize, al.Delta.uniform(0.02)
    if pruned:
        prune(fast)
    return original, fast


def assert_same_file(path: Path, other: Path) -> None:
    (header, arrays), (old, before) = read_file(path), read_file(other)
    assert header == old
    assert {name: a.tobytes() for name, a in arrays.items()} == {name: a.tobytes() for name, a in before.items()}


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_model_comes_back(tmp_path: Path, precision: str, pruned: bool) -> None:
    original, fast = adapted(PRECISIONS[precision], pruned=pruned)
    al.save(fast, tmp_path / "first", weights=True)
    loaded = al.load(tmp_path / "first", original)
    x = signal(3, 12, 5)
    assert_equal(infer(loaded, x), infer(fast, x))
    al.save(loaded, tmp_path / "second", weights=True)
    assert_same_file(tmp_path / "second", tmp_path / "first")


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("precision", ["int8", "bf16", "fp32"])
def test_bytes_are_those_of_the_report(tmp_path: Path, precision: str, pruned: bool) -> None:
    _, fast = adapted(PRECISIONS[precision], pruned=pruned, hidden=96)
    path = tmp_path / "model"
    al.save(fast, path, weights=True)
    _, arrays = read_file(path)
    reported = al.report(fast).bytes_after
    assert sum(array.nbytes for name, array in arrays.items() if ".weights." in name) == reported
    assert path.stat().st_size <= 1.05 * reported


def test_a_certificate_covers_the_loaded_model(tmp_path: Path) -> None:
    model, fast = tagger()
    al.save(fast, tmp_path / "model", certificate=certificate_of(fast), weights=True)
    loaded = al.load(tmp_path / "model", model)
    al.save(loaded, tmp_path / "again", certificate=al.load_certificate(tmp_path / "model"), weights=True)
    assert_same_file(tmp_path / "again", tmp_path / "model")


def test_another_model_is_refused(tmp_path: Path) -> None:
    original, fast = adapted(al.Quantize("int8"), pruned=True)
    al.save(fast, tmp_path / "model", weights=True)
    with torch.no_grad():
        original.get_parameter("weight_hh_l1")[3, 2] += 0.5
    with pytest.raises(al.AdaptiveLSTMError, match="parameters differ"):
        al.load(tmp_path / "model", original)


def test_settings_alone_hold_no_stacks(tmp_path: Path) -> None:
    _, fast = adapted(al.Quantize("int8"), pruned=False)
    al.save(fast, tmp_path / "model")
    with pytest.raises(al.AdaptiveLSTMError, match="weights=True"):
        read_stacks(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("0.weights.0.w_hh.scale", lambda a: -a, "positive"),
        ("0.weights.0.w_hh.scale", lambda a: np.full_like(a, 3e38), "infinity"),
        ("0.weights.1.bias", lambda a: a * np.float32(np.nan), "NaN"),
        ("0.weights.0.w_hh", lambda a: a[:-1], "expected int8"),
        ("0.weights.0.w_hh", lambda a: np.full_like(a, -128), "-128"),
        ("0.weights.0.w_ih", lambda a: np.full_like(a, 0x7FC0), "NaN"),
    ],
)
def test_impossible_weights_are_refused(tmp_path: Path, name: str, spoil: object, says: str) -> None:
    original, fast = adapted(al.Quantize("int8"), pruned=False)
    path = tmp_path / "model"
    al.save(fast, path, weights=True)
    header, arrays = read_file(path)
    assert callable(spoil)
    write_file(path, {key: header[key] for key in ("lstms", "certificate")}, arrays | {name: spoil(arrays[name])})
    with pytest.raises(al.AdaptiveLSTMError, match=says):
        read_stacks(path)
    with pytest.raises(al.AdaptiveLSTMError, match=says):
        al.load(path, original)


@pytest.mark.parametrize("columns", [7, 40])
@pytest.mark.parametrize("ranged", [False, True])
def test_weights_on_the_grid_round_to_the_same_matrix(columns: int, ranged: bool) -> None:
    random = np.random.default_rng(columns)
    scale = random.uniform(0.01, 90, columns).astype(np.float32) if ranged else None
    for _ in range(20):
        matrix = quantize_matrix(random.standard_normal((64, columns)).astype(np.float32), "int8", 1016, scale)
        again = quantize_matrix(on_grid(matrix), "int8", 1016, scale)
        assert np.array_equal(again.values, matrix.values)
        assert again.scale is not None
        assert matrix.scale is not None
        assert np.abs(again.scale.view(np.int32) - matrix.scale.view(np.int32)).max() <= 1


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["scipy"] = None
from adaptive_lstm.artifact.stacks import read_stacks
stacks = read_stacks(sys.argv[1])
for name, stack in stacks.by_name.items():
    print(name, stack.shape.num_layers, stack.cells[0].w_hh.precision, type(stack.settings.policy).__name__)
"""


def test_stacks_are_read_without_torch(tmp_path: Path) -> None:
    _, fast = tagger()
    al.save(fast, tmp_path / "model", weights=True)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "model")], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["below.lstm 3 int8 Delta", "above 1 fp32 Combined"]
