"""Exported C gives the outputs and the counts of the portable kernels, bit for bit, without a warning or a fault.

The golden test that comes with an export says so itself: outputs, counts, streams that are saved, moved and restored,
16-bit integers, and what is refused. It is compiled as strictly as can be, with sanitizers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.artifact import container
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
@pytest.mark.parametrize("target", ["m4", "m7", "m55", "a53"])
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


@pytest.mark.slow
def test_columns_of_large_matrices_are_added_in_another_order(tmp_path: Path) -> None:
    fast = adapted(StackShape(1, 200, 1), PRECISIONS["fp32"], al.Delta.uniform(0.01), pruned=False)
    al.export_c(fast, tmp_path, name="vad")
    assert "passed" in run_golden(tmp_path)
    assert not json.loads((tmp_path / "vad.json").read_text(encoding="utf-8"))["bit_exact"]


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
        ({"name": "vad", "inputs": np.zeros((3, 4), np.float32)}, r"of at most 7.92282e\+28 \[T, 5\]"),
        ({"name": "vad", "inputs": "typical"}, "inputs: got str"),
        ({"name": "vad", "inputs": [[0.0, 1.0], [2.0]]}, "inputs: got list"),
        ({"name": "vad", "inputs": np.zeros((3, 5), np.complex64)}, "inputs: got ndarray"),
        ({"name": "vad", "inputs": np.full((3, 5), 1e300)}, "inputs: got inf"),
        ({"name": "vad", "inputs": np.full((3, 5), 2.0**97)}, r"at most 7.92282e\+28"),
        ({"name": "vad", "lstm": "other"}, "lstm"),
        ({"name": "vad", "target": ["m4"]}, "target"),
        ({"name": None}, "identifier"),
        ({"name": "string"}, "a header"),
        ({"name": "test"}, "CMake"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: dict[str, object], says: str) -> None:
    fast = adapted(STACK, PRECISIONS["int8"], al.Dense(), pruned=False)
    with pytest.raises(al.AdaptiveLSTMError, match=says):
        al.export_c(fast, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", [None, "", "a\0b", "/dev/null"])
def test_what_is_no_folder(out: Any) -> None:
    with pytest.raises(al.AdaptiveLSTMError, match="folder"):
        al.export_c(adapted(STACK, PRECISIONS["int8"], al.Dense(), pruned=False), out, name="vad")


def test_names_that_begin_macros_of_c(tmp_path: Path) -> None:
    fast = adapted(STACK, PRECISIONS["fp32"], al.ExitInTime(head(9), threshold=0.5), pruned=False)
    for name in ("flt", "int8"):  # FLT_MAX, INT8_MAX
        al.export_c(fast, tmp_path, name=name)
        assert exact(run_golden(tmp_path, name))


def test_gradients_of_inputs_do_not_matter(tmp_path: Path) -> None:
    fast = adapted(STACK, PRECISIONS["fp32"], al.Dense(), pruned=False)
    inputs: dict[str, Any] = {"one": torch.ones(3, 5, requires_grad=True), "two": np.ones((3, 5))}
    for folder, x in inputs.items():
        al.export_c(fast, tmp_path / folder, name="vad", inputs=x)
    assert len({(tmp_path / name / "vad_golden.h").read_text() for name in ("one", "two")}) == 1


@pytest.mark.parametrize(
    "shape", [StackShape(2**16 - 7, 1, 1), StackShape(1, 2**14, 1), StackShape(1, 9000, 8)], ids=str
)
def test_sizes_that_do_not_fit_16_bits(shape: StackShape) -> None:
    policy = al.ExitInTime(head(9), threshold=0.5) if shape.num_layers > 1 else al.Dense()
    with pytest.raises(al.errors.UnsupportedError, match="expected at most"):
        check_exportable("lstm", shape, policy)


def test_a_state_knows_everything_of_its_model(tmp_path: Path) -> None:
    """Also what changes no weight: a saved state of another threshold, or of other scales, is refused."""
    stamps = set()
    for threshold, scale in ((0.1, 1.0), (0.2, 1.0), (0.1, 2.0)):
        fast = adapted(STACK, PRECISIONS["int8"], al.Delta.uniform(threshold), pruned=False)
        with torch.no_grad():
            fast.get_parameter("weight_hh_l0").mul_(scale)
        al.export_c(fast, tmp_path, name="vad")
        (line,) = (one for one in (tmp_path / "vad_weights.c").read_text().splitlines() if "vad_the_model =" in one)
        stamps.add(line)
    assert len(stamps) == 3


def test_a_certificate_that_covers_nothing_is_refused(tmp_path: Path) -> None:
    fast = adapted(STACK, PRECISIONS["int8"], al.Dense(), pruned=False)
    al.save(fast, tmp_path / "model", weights=True)
    header, arrays = container.read(tmp_path / "model")
    header.pop("sha256", None)
    container.write(tmp_path / "model", header | {"certificate": "certified!"}, arrays, weights=True)
    with pytest.raises(al.errors.ModelFileError, match="certificate"):
        al.export_c(tmp_path / "model", tmp_path / "out", name="vad")
