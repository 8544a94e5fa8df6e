"""Files with weights of real pretrained models: as small as the report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.model_io import batch_by_shape
from adaptive_lstm.runtime.adapt import lstms_of
from eval import within_budget
from eval import zoo as real

from ..support.real_models import loaded

RECORDS = Path(__file__).resolve().parents[2] / "eval" / "results" / "within_budget.jsonl"
RECOMMENDED = {  # the loosest budget that keeps the task, by model
    record["group"]: record["budget"] for record in map(json.loads, RECORDS.read_text(encoding="utf-8").splitlines())
}
CHOSEN = ("turbofan", "nnsplit-en", "charrnn-zora_neale_hurston", "pyannote")  # of 18; all of them take eight minutes
MOST = 1.05  # times the bytes of the report


def larger(fast: torch.nn.Module, report: al.CompressReport, path: Path) -> float:
    """The size of its file, as a share of what the report states."""
    al.save(fast, path, weights=True)
    return path.stat().st_size / report.bytes_after


@pytest.mark.parametrize("name", real.NAMES)
def test_int8_under_delta(name: str, zoo: Path, tmp_path: Path) -> None:
    fast = al.adapt(loaded(name, zoo).model)
    report = al.compress(fast, quantize=al.Quantize("int8"))
    assert larger(fast, report, tmp_path / "dense") <= MOST
    for lstm in lstms_of(fast).values():
        lstm.policy = al.Delta.uniform(0.05)
    assert larger(fast, report, tmp_path / "delta") <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_the_recommended_setting(name: str, zoo: Path, tmp_path: Path) -> None:
    """As ``eval.within_budget`` finds it: pruned, each matrix in its precision."""
    model = real.load(name, zoo)
    fit = batch_by_shape(model.prepared().fit[: within_budget.FIT], within_budget.BATCH)
    fast = al.adapt(model.model)
    report = al.compress_within(fast, fit, RECOMMENDED[name], progress=False)
    assert larger(fast, report, tmp_path / "model") <= MOST
