"""Every public object, however large, is printed on a screen."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.calibration.certificate import Certificate
from adaptive_lstm.calibration.result import Point
from adaptive_lstm.codec import TOLD, brief
from adaptive_lstm.compression.report import LSTMReport, MatrixReport
from adaptive_lstm.policies import DepthTranslators, Map, TimeTranslators
from adaptive_lstm.runtime.monitor import Range
from adaptive_lstm.types import ColumnCounts, Counts, ExitState, HoldState, StackShape

CHARACTERS, LINES = 5000, 45

MANY = 5000
SHAPE = StackShape(4, 8, 2)
FLOATS = tuple(0.001 * i for i in range(1, MANY + 1))
MAP = Map(np.ones((8, 8), np.float32), np.ones(8, np.float32))
DELTA = al.Delta(h=FLOATS)
HEAD = al.LinearHead(np.ones((300, 8), np.float32), np.ones(300, np.float32))
COLUMNS = (ColumnCounts(1, 2, 3, 4, 5, 6),) * MANY
ROUTE = al.Route("native", "x" * 50)
TENSOR = torch.zeros(3, 100, 50)
SEQUENCES = [torch.zeros(1, 9, 4)] * MANY


def adapted() -> Any:
    """A model whose LSTM has been compressed with raw ranges."""
    fast = al.adapt(nn.LSTM(60, 8, 2).eval())
    al.compress(fast, torch.randn(9, 3, 60), quantize=al.Quantize("int8", raw="int8"))
    return fast


def certificate() -> Certificate:
    """A certificate of a model with many LSTMs."""
    by_name = {f"layer{i}": "int8, fitted weights" for i in range(MANY)}
    return Certificate(
        certified=False, policy="dense", policy_digest="0" * 64, losses=({"name": "l", "limit": 0.1},),
        confidence=0.95, p_value=None, conditional=False, sequences={"test": {"count": 3, "sha256": "0" * 64}},
        savings={"macs": 1.0}, candidates={"searched": 1}, weights="0" * 64, surroundings="0" * 64, precision=by_name,
        quantization="0" * 64, backend={"name": "native"}, versions={"torch": "2"}, assumption="a" * 500, made="now",
        seconds=1.0,
    )  # fmt: skip


def calibration() -> al.Calibration:
    """Many candidates, with policies of many LSTMs."""
    settings = {f"layer{i}": DELTA for i in range(100)}
    point = Point("delta", settings, 0.5, 0.5, (0.1,))
    return al.Calibration(True, settings, (point,) * 300, certificate(), {"layer0": {"ran": Range(0.5, 0.1, 9)}})


def report() -> al.CompressReport:
    """Of hundreds of matrices."""
    matrix = MatrixReport("lstm.weight_ih_l0", "int8", 0.5, 10, 5, 40, 20, 0.1, 0.1, "dense", 3, 0.5)
    return al.CompressReport((LSTMReport("lstm", (matrix,) * 20, 100, None, None, (8, 0)),) * 300)


def translators() -> al.Translators:
    """Hundreds of maps."""
    return al.Translators(
        TimeTranslators(tuple(range(300)), (MAP,) * 300), DepthTranslators((MAP,) * 300, (MAP,) * 300)
    )


def audit() -> al.Audit:
    """Of a model that skips."""
    fast = adapted()
    return al.audit(fast, copy.deepcopy(fast), max_loss=0.1)


BIG: dict[str, Any] = {
    "AdaptiveLSTM": adapted,
    "AdaptiveLSTMCell": lambda: al.AdaptiveLSTMCell.from_cell(torch.nn.LSTMCell(2, 3)),
    "AsyncStreamPool": lambda: al.AsyncStreamPool(adapted(), 4),
    "Audit": audit,
    "BackendInfo": al.backend_info,
    "CExport": lambda: al.CExport("x" * 300, ("vad_weights.c",) * 300, 1, 2, 3, 4),
    "Calibration": calibration,
    "Certificate": certificate,
    "Combined": lambda: al.Combined(DELTA, al.HoldLayers(x_share=FLOATS), al.ExitInTime(HEAD, threshold=0.9)),
    "CompressReport": report,
    "Delta": lambda: DELTA,
    "Dense": al.Dense,
    "ExitInDepth": lambda: al.ExitInDepth(translators=translators().depth, threshold=0.1),
    "ExitInTime": lambda: al.ExitInTime(HEAD, threshold=FLOATS[:300], translators=translators().time),
    "Family": lambda: al.Family(al.ExitInTime, head=HEAD),
    "HoldLayers": lambda: al.HoldLayers(x_share=FLOATS),
    "LinearHead": lambda: HEAD,
    "Prune": al.Prune,
    "Quantize": lambda: al.Quantize(
        "int8", raw="int8", raw_scale=FLOATS, matrices={f"weight_ih_l{i}": "bf16" for i in range(99)}
    ),
    "Route": lambda: ROUTE,
    "RunStats": lambda: al.RunStats(1, 2, 3, 4, 5, 6, 7, COLUMNS, ROUTE, 1),
    "Sensitivity": lambda: al.measure_sensitivity(al.adapt(nn.LSTM(4, 8, 40).eval()), torch.randn(2, 1, 4)),
    "Site": lambda: al.Site(SHAPE, 0, "x"),
    "SkipTimesteps": al.SkipTimesteps,
    "SplitTime": lambda: al.SplitTime(chunk=8, tolerance=FLOATS),
    "Splits": lambda: al.Splits(SEQUENCES, SEQUENCES, SEQUENCES),
    "Stream": lambda: al.stream(adapted()),
    "StreamPool": lambda: al.StreamPool(adapted(), 4),
    "StreamState": lambda: al.StreamState(
        TENSOR, TENSOR, (TENSOR,) * 300, (TENSOR,) * 300, (HoldState(TENSOR),) * 300,
        ExitState(TENSOR, TENSOR, TENSOR, TENSOR, TENSOR),
    ),
    "TimeShare": lambda: al.TimeShare(1.5, 1.4, 1.6, 15, "sequence", 1, "avx2", "x" * 300),
    "Translators": translators,
}  # fmt: skip
NOT_MADE = {"AdaptiveLSTMError", "AuditWarning", "DriftWarning", "Policy"}  # exceptions, and a protocol


def test_every_public_class_is_here() -> None:
    classes = {name for name in al.__all__ if inspect.isclass(getattr(al, name))}
    assert classes == BIG.keys() | NOT_MADE


@pytest.mark.parametrize("make", BIG.values(), ids=BIG)
def test_it_fits_a_screen(make: Any) -> None:
    value = make()
    for text in (repr(value), str(value), f"{value}"):
        assert len(text) <= CHARACTERS
        assert text.count("\n") < LINES


def test_what_they_hold_fits_too() -> None:
    fast = adapted()
    plan = fast.plan
    counts = Counts(COLUMNS, depth_checks=tuple(range(MANY)))
    for value in (plan, counts, calibration().frontier[0], report().lstms[0], fast.last_run, MAP):
        assert len(repr(value)) <= CHARACTERS


def test_small_values_are_told_whole() -> None:
    assert repr(al.Delta(h=0.5)) == "Delta(h=0.5, x=None)"
    assert brief((1, [2.5], {"a": None}, ())) == "(1, [2.5], {'a': None}, ())"
    assert brief((1,)) == "(1,)"
    assert brief(list(range(9))) == "[0, 1, 2, 3, ... 9 in all]"
    assert brief(np.zeros((3, 4), np.float32)) == "<float32 [3, 4]>"
    assert brief(torch.zeros(2)) == "<float32 [2]>"


def test_deep_things_end() -> None:
    deep: Any = "x" * 500
    for _ in range(50):
        deep = [deep] * 50
    assert len(brief(deep)) <= TOLD + 3


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda v: al.SkipTimesteps(x_share=v), list(range(50_000))),
        (lambda v: al.Delta(h=v), [[list(range(50_000))]]),
        (lambda v: al.SkipTimesteps(x_share=0.1, mode=v), "x" * 100_000),
        (lambda v: al.SkipTimesteps(x_share=0.1, cap=v), {str(i): i for i in range(50_000)}),
        (lambda v: al.HoldLayers(x_share=0.1, mode=v), ["x"] * 50_000),
        (lambda v: al.Prune(v), "x" * 100_000),
        (lambda v: al.Prune("unstructured", v), tuple(range(50_000))),
        (lambda v: al.Quantize("int8", raw=v), "x" * 100_000),
        (lambda v: al.Quantize("int8", raw="int8", raw_scale=v), [["x"] * 50_000]),
        (lambda v: al.Family(v), "x" * 100_000),
        (lambda v: al.compress(adapted(), quantize=al.Quantize("int8"), rounding=v), "x" * 100_000),
    ],
)
def test_errors_tell_of_large_values_in_a_few_words(make: Any, value: Any) -> None:
    with pytest.raises(al.AdaptiveLSTMError) as told:
        make(value)
    assert "got" in str(told.value)
    assert len(str(told.value)) <= 2 * TOLD
