"""Exported C gives the outputs and the counts of the portable kernels, bit for bit, without a warning or a fault.

The golden test that comes with an export says so itself: outputs, counts, streams that are saved, moved and restored,
16-bit integers, and what is refused. It is compiled as strictly as can be, with sanitizers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.export.literals import array
from adaptive_lstm.export.refusals import check_exportable
from adaptive_lstm.policies import parts
from adaptive_lstm.types import StackShape

from ..support.artifact_cases import certificate_of, lstm_of, prune, tagger
from ..support.c_builds import run_emulated, run_golden
from ..support.helpers import torch_lstm
from ..support.policy_cases import FAMILIES, STACK, depth_translators, head

PRECISIONS = {
    "fp32": al.Quantize(),
    "int8": al.Quantize("int8"),
    "bf16": al.Quantize("bf16"),
    "bytes": al.Quantize("int8", raw="int8", raw_scale=(4.0, 3.0, 5.0, 4.0, 3.5), levels=127),
    "dynamic": al.Quantize("int8", raw="int8", raw_range="dynamic"),
    "weights only": al.Quantize("int8", levels=0, input_levels=0),
}
POLICIES: dict[str, al.Policy] = {
    "dense": al.Dense(),
    "delta": al.Delta(h=0.05, x=(0.1, 0.05, 0.05)),
    "held": al.Combined(al.Delta.uniform(0.02), al.SkipTimesteps(x_share=0.4, h=0.2, cap=5)),
}


def adapted(shape: StackShape, quantize: al.Quantize, policy: al.Policy, *, pruned: bool) -> al.AdaptiveLSTM:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(shape)).eval()
    fast.quantize, fast.policy = quantize, policy
    if pruned:
        prune(fast, 0.3)
    return fast


def exact(said: str) -> bool:
    return said.startswith("0 of ") and "passed" in said


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision(tmp_path: Path, precision: str, policy: str) -> None:
    pruned = (list(PRECISIONS).index(precision) + list(POLICIES).index(policy)) % 2 == 1
    fast = adapted(STACK, PRECISIONS[precision], POLICIES[policy], pruned=pruned)
    al.export_c(fast, tmp_path, name="vad")
    assert exact(run_golden(tmp_path))


def cases(streams: bool) -> list[object]:
    return [case for case in FAMILIES if case.values[0] is STACK and case.values[2] is streams]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "policy", "streams"), cases(streams=True))
def test_every_policy(
    tmp_path: Path, shape: StackShape, policy: al.Policy, streams: bool, request: pytest.FixtureRequest
) -> None:
    quantize = list(PRECISIONS.values())[len(request.node.name) % len(PRECISIONS)]
    fast = adapted(shape, quantize, policy, pruned=len(request.node.name) % 2 == 1)
    if any(one.action == "queue_input" for one in parts(policy).hold):
        with pytest.raises(al.AdaptiveLSTMError, match="queue_input"):
            al.export_c(fast, tmp_path, name="vad")
        return
    al.export_c(fast, tmp_path, name="vad")
    assert exact(run_golden(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["m4", "m7", "m55"])
@pytest.mark.parametrize("policy", POLICIES)
def test_emulated(tmp_path: Path, target: str, policy: str) -> None:
    precision = PRECISIONS["fp32" if policy == "dense" and target == "m7" else "bytes"]
    fast = adapted(STACK, precision, POLICIES[policy], pruned=policy == "delta")
    al.export_c(fast, tmp_path, name="vad", target=target)
    assert exact(run_emulated(tmp_path, target))


@pytest.mark.parametrize("hidden", [1, 7, 33, 130])
def test_sizes(tmp_path: Path, hidden: int) -> None:
    fast = al.adapt(torch_lstm(hidden % 5 + 1, hidden, 2)).eval()
    fast.quantize = al.Quantize("int8", raw="int8", raw_range="dynamic")
    fast.policy = al.Delta.uniform(0.03)
    al.export_c(fast, tmp_path, name="vad")
    assert exact(run_golden(tmp_path))


def test_given_inputs_are_the_golden_ones(tmp_path: Path) -> None:
    fast = adapted(STACK, PRECISIONS["int8"], al.Dense(), pruned=False)
    x = np.linspace(-1, 1, 35, dtype=np.float32).reshape(7, 5)
    al.export_c(fast, tmp_path, name="vad", inputs=x)
    assert "of 7 steps" in run_golden(tmp_path)
    text = (tmp_path / "vad_golden.h").read_text(encoding="utf-8")
    assert array("vad_golden_x", x).replace("ALSTM_FLASH ALSTM_ALIGNED ", "") in text


def test_an_lstm_of_a_file(tmp_path: Path) -> None:
    _, fast = tagger()
    al.save(fast, tmp_path / "model", certificate=certificate_of(fast), weights=True)
    with pytest.raises(al.AdaptiveLSTMError, match=r"expected one of 'below\.lstm', 'above'"):
        al.export_c(tmp_path / "model", tmp_path / "out", name="vad")
    with pytest.raises(al.AdaptiveLSTMError, match=r"below\.lstm cannot be exported to C: it is bidirectional"):
        al.export_c(tmp_path / "model", tmp_path / "out", name="vad", lstm="below.lstm")
    assert not (tmp_path / "out").exists()
    al.export_c(tmp_path / "model", tmp_path / "out", name="vad", lstm="above")
    assert exact(run_golden(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "vad.json").read_text(encoding="utf-8"))
    assert record["certificate"]["policy"] == "Delta(tau=0.1)"
    assert set(record["monitor"]) == {"activity", "exits"}


def test_two_models_in_one_program(tmp_path: Path) -> None:
    """Every symbol begins with the name, so that exports can be linked together."""
    for name in ("first", "second"):
        fast = adapted(STACK, PRECISIONS["int8"], al.Dense(), pruned=False)
        al.export_c(fast, tmp_path, name=name)
    program = '#include "first.h"\n#include "second.h"\nstatic first_state a;\nstatic second_state b;\n'
    program += "int main(void) { return first_init(&a) != FIRST_OK || second_init(&b) != SECOND_OK; }\n"
    (tmp_path / "test_first.c").write_text(program, encoding="utf-8")
    sources = ("second.c", "second_weights.c")
    assert run_golden(tmp_path, "first", ("-O1", *sources)) == ""


def test_the_header_is_cpp_too(tmp_path: Path) -> None:
    al.export_c(adapted(STACK, PRECISIONS["int8"], al.Dense(), pruned=False), tmp_path, name="vad")
    header = (tmp_path / "vad.h").read_text(encoding="utf-8")
    assert 'extern "C" {' in header
    assert "alstm" not in "".join(path.read_text(encoding="utf-8").lower() for path in tmp_path.iterdir())


TRANSLATORS = depth_translators(STACK)


@pytest.mark.parametrize(
    ("shape", "policy", "says"),
    [
        (replace(STACK, bidirectional=True), al.Dense(), "bidirectional"),
        (replace(STACK, proj_size=3), al.Dense(), "projection"),
        (STACK, al.ExitInTime(torch.nn.Sequential(torch.nn.Linear(9, 2), torch.nn.Tanh()), threshold=0.5), "head"),
        (
            STACK,
            al.ExitInDepth(translators=TRANSLATORS, head=head(9), threshold=0.5, level="sequence"),
            "level='sequence'",
        ),
        (STACK, al.HoldLayers(x_share=(0.1, None), mode="queue_input"), "queue_input"),
    ],
)
def test_refusals(shape: StackShape, policy: al.Policy, says: str) -> None:
    with pytest.raises(al.AdaptiveLSTMError, match=says):
        check_exportable("lstm", shape, policy)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "2vad"}, "identifier"),
        ({"name": "vad", "target": "z80"}, "target"),
        ({"name": "vad", "inputs": np.zeros((3, 4), np.float32)}, r"expected finite \[T, 5\]"),
        ({"name": "vad", "lstm": "other"}, "lstm"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: dict[str, object], says: str) -> None:
    fast = adapted(STACK, PRECISIONS["int8"], al.Dense(), pruned=False)
    with pytest.raises(al.AdaptiveLSTMError, match=says):
        al.export_c(fast, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
