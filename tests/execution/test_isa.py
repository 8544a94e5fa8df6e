"""Every instruction set and backend, forced in a process of its own: it really serves and gives the same numbers."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import _native

KNOWN = ("amx", "avx512vbmi2", "avx512vnni", "avx2", "i8mm", "neondot", "neon", "generic")

# Whole sequences, in which a last bit may move an activation to the next integer; and the first layer's step from a
# state that is made of such integers. One thread and one row where torch might be chosen for its speed.
PROGRAM = """
import json, sys, warnings
from pathlib import Path

class NoExtension:
    def find_spec(self, name, path=None, target=None):
        if name == "adaptive_lstm._native":
            raise ImportError("no such file")

if "--without-extension" in sys.argv:
    sys.meta_path.insert(0, NoExtension())

import torch
import adaptive_lstm as al

torch.set_num_threads(1)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    torch.manual_seed(0)
    lstm = al.AdaptiveLSTM(40, 70, 2).eval()
    x, start = torch.randn(60, 3, 40), torch.randint(-1016, 1017, (2, 2, 3, 70)) / 1016
    out = {}
    with torch.no_grad():
        for precision in ("fp32", "bf16", "int8"):
            lstm.quantize = al.Quantize(precision)
            rows = slice(1 if precision == "fp32" else 3)
            out[precision] = lstm(x[:, rows])[0]
            out[precision + " step"] = torch.cat(lstm(x[:1, rows], (start[0][:, rows], start[1][:, rows]))[1])[::2]
        for name, policy in (("tiny", al.Delta.uniform(1e-9)), ("delta", al.Delta.uniform(0.05))):
            lstm.policy = policy
            out[name], counted = lstm(x)[0], lstm.last_run
        lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=[0.5 + 0.1 * j for j in range(40)])
        for name, dx in (("raw tiny", (1e-9, 1e-9)), ("raw delta", (0.1, 0.05)), ("raw", None)):
            lstm.policy = al.Dense() if dx is None else al.Delta(h=dx[1], x=dx)
            out[name] = lstm(x)[0]
        out["raw step"] = torch.cat(lstm(x[:1], (start[0], start[1]))[1])[::2]
        many, ends = torch.randn(1, 37, 40), torch.randint(-1016, 1017, (2, 2, 37, 70)) / 1016
        for levels in (64, 127, 1016):  # so many rows that instruction sets with tiles use them
            lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=[4.0] * 40, levels=levels, raw_levels=levels)
            out[f"{levels} wide step"] = torch.cat(lstm(many, (ends[0], ends[1]))[1])[::2]
        square = al.AdaptiveLSTM(64, 128).eval()  # whose columns fill the tiles
        square.quantize = al.Quantize("int8", raw="int8", raw_scale=[4.0] * 64)
        same = ends[0][:1, :21, :1].repeat(1, 1, 128)
        out["square wide step"] = torch.cat(square(torch.randn(1, 21, 64), (same, same))[1])
        lstm.quantize = al.Quantize("int8", raw="int8", raw_range="dynamic")
        out["dynamic"], out["dynamic step"] = lstm(x)[0], torch.cat(lstm(x[:1], (start[0], start[1]))[1])[::2]
        lstm.quantize, lstm.policy = al.Quantize("int8"), al.Delta.uniform(0.05)
        with al.stream(lstm, batch_size=3) as stream:
            out["stream"] = torch.stack([stream.step(row) for row in x])
    info = al.backend_info()

torch.save(out, sys.argv[1])
print(json.dumps({
    "backend": info.backend, "isa": info.isa, "usable": info.usable_isas, "activity": counted.activity,
    "route": str(counted.route), "warnings": [[w.category.__name__, str(w.message)] for w in caught],
}))
"""


@dataclass(frozen=True)
class Answer:
    """Of PROGRAM: what it printed, what it computed, and its errors."""

    code: int
    errors: str
    said: dict[str, Any]
    outputs: dict[str, torch.Tensor]


def ask(folder: Path, *options: str, **variables: str) -> Answer:
    """Runs PROGRAM with these environment variables, and none of those that the caller may have set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTIVE_LSTM_")}
    file = folder / "outputs.pt"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), *options],
        env=environment | {f"ADAPTIVE_LSTM_{name}": value for name, value in variables.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return Answer(done.returncode, done.stderr, {}, {})
    return Answer(0, done.stderr, json.loads(done.stdout), torch.load(file))


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    answer = ask(tmp_path_factory.mktemp("default"))
    assert answer.code == 0, answer.errors
    return answer


def assert_same_numbers(got: Answer, want: Answer) -> None:
    assert got.code == 0, got.errors
    assert got.outputs.keys() == want.outputs.keys()
    for name, value in got.outputs.items():
        expected = want.outputs[name]
        if name.startswith(("fp32", "bf16")) or name.endswith("step"):
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
        else:
            torch.testing.assert_close(value, expected, rtol=0, atol=5e-3)
            assert (value - expected).abs().mean() < 1e-5
    assert torch.equal(got.outputs["tiny"], got.outputs["int8"])
    assert torch.equal(got.outputs["raw tiny"], got.outputs["raw"])


def test_the_best_one_serves_by_default(default: Answer) -> None:
    usable = default.said["usable"]
    assert usable == _native.usable_isas() == [isa for isa in KNOWN if isa in _native.usable_isas()]
    assert usable[-1] == "generic"
    assert (default.said["backend"], default.said["isa"]) == ("native", usable[0])
    assert (default.said["route"], default.said["warnings"]) == ("native", [])


@pytest.mark.parametrize("isa", _native.usable_isas())
def test_a_forced_one_serves_and_gives_the_same_numbers(isa: str, tmp_path: Path, default: Answer) -> None:
    got = ask(tmp_path, ISA=isa, BACKEND="native")
    assert_same_numbers(got, default)
    assert (got.said["backend"], got.said["isa"]) == ("native", isa)
    assert got.said["usable"] == default.said["usable"]


def test_this_process_runs_what_was_forced_on_it() -> None:
    assert al.backend_info().isa == (os.environ.get("ADAPTIVE_LSTM_ISA") or _native.usable_isas()[0])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ISA": "sse9"}, "ADAPTIVE_LSTM_ISA=sse9: unknown instruction set; this build has "),
        ({"ISA": "AVX2"}, "ADAPTIVE_LSTM_ISA=AVX2: unknown instruction set; this build has "),
        ({"BACKEND": "cuda"}, "ADAPTIVE_LSTM_BACKEND: got 'cuda', expected 'native' or 'reference'"),
    ],
)
def test_an_unknown_name_is_an_error(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    got = ask(tmp_path, **variables)
    assert got.code == 1
    assert f"adaptive_lstm.errors.BackendError: {message}" in got.errors
    if "ISA" in variables:
        assert all(isa in got.errors for isa in _native.usable_isas())


def test_one_that_does_not_run_here_is_an_error(tmp_path: Path) -> None:
    unusable = [isa for isa in KNOWN if isa not in _native.usable_isas()]
    if not unusable:
        pytest.skip("every instruction set runs on this machine")
    got = ask(tmp_path, ISA=unusable[0])
    assert got.code == 1
    # Those of another processor family are unknown.
    assert f"adaptive_lstm.errors.BackendError: ADAPTIVE_LSTM_ISA={unusable[0]}: " in got.errors


def test_the_reference_serves_if_demanded(tmp_path: Path, default: Answer) -> None:
    got = ask(tmp_path, BACKEND="reference")
    assert_same_numbers(got, default)
    assert (got.said["backend"], got.said["isa"], got.said["usable"]) == ("reference", "torch", [])
    assert got.said["route"] == "reference: no native extension"
    assert got.said["activity"] == pytest.approx(default.said["activity"], abs=1e-3)
    assert got.said["warnings"] == []


def test_without_the_extension_there_is_one_warning(tmp_path: Path, default: Answer) -> None:
    got = ask(tmp_path, "--without-extension")
    assert_same_numbers(got, default)
    assert got.said["backend"] == "reference"
    ((category, message),) = got.said["warnings"]
    assert category == "RuntimeWarning"
    assert "the native extension does not load (no such file); the reference executor serves" in message


def test_a_missing_extension_that_is_demanded_is_an_error(tmp_path: Path) -> None:
    got = ask(tmp_path, "--without-extension", BACKEND="native")
    assert got.code == 1
    assert "BackendError: ADAPTIVE_LSTM_BACKEND=native, but the extension does not load: no such file" in got.errors
