"""The command line: every subcommand, its help, its JSON, and one clear line and exit code 2 for bad input."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adaptive_lstm.cli import main as cli
from adaptive_lstm.cli.demo import command, digits
from adaptive_lstm.cli.demo.outcome import DemoOutcome
from adaptive_lstm.cli.demo.run import run
from adaptive_lstm.cli.help import SUMMARIES
from adaptive_lstm.peers import catalog
from adaptive_lstm.peers.catalog import PeerKind
from adaptive_lstm.peers.contender import BuildRequest, Engine
from adaptive_lstm.policies import ExitInTime, Family

from ..support.helpers import refused

# Said once per process by torch, whose path serves a projection now and then.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

FACTORY = """
import torch
from neighbour import WIDTH

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.LSTM(5, WIDTH, 2, bidirectional=True)
        self.decoder = torch.nn.LSTM(2 * WIDTH, 3, proj_size=2, bias=False)

def build():
    return Net()

def broken():
    raise KeyError("no weights")

def number():
    return 3

def ended():
    raise SystemExit(0)

def gru():
    return torch.nn.GRU(3, 4)
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 7\n", encoding="utf-8")
    path = tmp_path / "model.py"
    path.write_text(FACTORY, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", [(), *((name,) for name in SUMMARIES)])
def test_help_explains_and_gives_examples(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert ("examples:\n  adaptive-lstm" in text) == bool(command)
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize(("model", "code", "said"), [
    (str(digits.MODEL_FILE), 0, "lstm: LSTM 16 -> 160, 2 layers"),
    ("absent.pt", 2, "adaptive-lstm: error: no such file: absent.pt\n"),
], ids=["good", "bad"])  # fmt: skip
def test_the_package_runs_as_a_module(model: str, code: int, said: str) -> None:
    command = [sys.executable, "-m", "adaptive_lstm", "inspect", model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in (done.stderr if code else done.stdout)


def test_inspect_reads_weights_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(digits.MODEL_FILE), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (lstm,) = found["lstms"]
    assert (lstm["name"], lstm["input_size"], lstm["hidden_size"], lstm["layers"]) == ("lstm", 16, 160, 2)
    reference = digits.load_model().lstm
    weights = sum(p.numel() for name, p in reference.named_parameters() if name.startswith("weight"))
    assert lstm["parameters"] == sum(p.numel() for p in reference.parameters())
    assert lstm["macs_per_step"] == weights
    biases = sum(p.numel() for name, p in reference.named_parameters() if name.startswith("bias_ih"))
    assert lstm["bytes"]["fp32"] == 4 * (weights + biases)  # the two biases of a gate are added up
    assert weights < lstm["bytes"]["int8"] < 2 * weights <= lstm["bytes"]["bf16"] < 3 * weights
    assert found["backend"]["backend"] in ("native", "reference")


def test_inspect_builds_a_model_from_a_python_file(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", f"{factory}:build"]) == 0
    text = capsys.readouterr().out
    assert "encoder: LSTM 5 -> 7, 2 layers, both directions" in text
    assert "decoder: LSTM 14 -> 3 projected to 2, 1 layer, no bias" in text
    assert str(factory.parent) not in sys.path


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 3}, {"bias": False, "num_layers": 3}])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_inspect_infers_every_kind_of_lstm(
    options: dict[str, int], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lstm = nn.LSTM(5, 6, **options)
    path = tmp_path / f"weights{suffix}"
    state = {f"net.rnn.{name}": values for name, values in lstm.state_dict().items()}
    if suffix == ".pt":
        torch.save({"epoch": 3, "model": state}, path)
    else:
        save_file(state, path)
    assert cli.main(["inspect", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["lstms"]
    assert found["name"] == ("model.net.rnn" if suffix == ".pt" else "net.rnn")
    assert found["parameters"] == sum(p.numel() for p in lstm.parameters())
    assert found["proj_size"] == lstm.proj_size
    assert found["directions"] == (2 if lstm.bidirectional else 1)


def test_inspect_says_why_a_bidirectional_lstm_cannot_stream(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", f"{factory}:build", "--json"]) == 0
    encoder, _ = json.loads(capsys.readouterr().out)["lstms"]
    assert encoder["executed_by"]["fp32 streaming"].startswith("no: ")
    assert "bidirectional" in encoder["executed_by"]["fp32 streaming"]


def test_bad_models_get_one_clear_line(factory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.safetensors").write_bytes(digits.MODEL_FILE.read_bytes()[:1000])
    (tmp_path / "broken.pt").write_bytes(b"nothing of the kind")
    torch.save(nn.LSTM(2, 3), tmp_path / "whole.pt")
    truncated = nn.LSTM(2, 3, 2).state_dict()
    del truncated["weight_hh_l1"]
    save_file(truncated, tmp_path / "truncated.safetensors")
    save_file(nn.GRU(2, 3).state_dict(), tmp_path / "gru.safetensors")
    for named, message in {
        "model.onnx": "expected path/to/file.py:factory or a file .safetensors",
        f"{factory}": "expected the function that builds the model too",
        f"{tmp_path}/absent.py:build": "no such file",
        f"{tmp_path}/absent.pt": "no such file",
        f"{factory}:absent": "failed: AttributeError",
        f"{factory}:broken": "failed: KeyError: 'no weights'",
        f"{factory}:ended": "failed: SystemExit: 0",
        f"{factory}:number": "must return an nn.Module, got int",
        f"{factory}:gru": "no nn.LSTM in",
        f"{tmp_path}/gru.safetensors": "no nn.LSTM in",
        f"{tmp_path}/broken.safetensors": "is damaged or no safetensors file",
        f"{tmp_path}/broken.pt": "is damaged or holds more than weights",
        f"{tmp_path}/whole.pt": "is damaged or holds more than weights",
        f"{tmp_path}/truncated.safetensors": 'do not form an LSTM: Missing key(s) in state_dict: "weight_hh_l1"',
    }.items():
        assert message in refused(capsys, "inspect", named)
        assert message in refused(capsys, "bench", named)


def test_bad_options_are_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, "demo", "--out", tmp_path / "absent" / "demo.png")
    assert "ending in .png" in refused(capsys, "demo", "--out", tmp_path / "demo.txt")
    (tmp_path / "folder.png").mkdir()
    assert "which is none" in refused(capsys, "demo", "--out", tmp_path / "folder.png")
    assert "it is a folder" in refused(capsys, "compress", "--out", tmp_path)
    assert "No such file" in refused(capsys, "compress", "--out", tmp_path / "absent" / "model.alstm")
    assert "at least 1, got '0'" in refused(capsys, "bench", "--layers", "0")
    assert "at least 1, got '-3'" in refused(capsys, "bench", "--threads", "-3")
    assert "invalid choice" in refused(capsys, "dance")


SMALL = ("--input-size", "4", "--hidden-size", "8", "--layers", "2", "--steps", "5", "--seconds", "1")


def test_bench_compares_on_sequences_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert cli.main(["bench", *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (lstm,) = found["lstms"]
    for use in ("sequence", "step"):
        assert list(lstm[use]) == ["torch", "adaptive fp32", "adaptive int8"]
        assert all(measured["seconds"]["median"] > 0 for measured in lstm[use].values())
    assert list(lstm["contenders"]) == ["torch", "adaptive fp32", "adaptive int8"]
    assert lstm["contenders"]["adaptive fp32"]["error"] < 1e-5 < lstm["contenders"]["adaptive int8"]["error"]
    assert lstm["contenders"]["torch"]["bytes"] > lstm["contenders"]["adaptive int8"]["bytes"] > 0
    assert lstm["unavailable"] == {}
    assert found["machine"]["threads"] == 1
    assert torch.get_num_threads() == threads


def test_bench_prints_a_table_for_a_model_of_ones_own(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", f"{factory}:build", "--steps", "4", "--seconds", "1"]) == 0
    text = capsys.readouterr().out
    assert "encoder: LSTM(5, 7, num_layers=2, bidirectional=True)" in text
    assert "no streaming" in text
    assert "1 thread on" in text


def test_bench_races_peers_on_what_reaches_the_lstm(
    reader: tuple[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(order: object) -> Engine:
        raise ImportError("No module named 'abacus'")

    monkeypatch.setattr(
        catalog, "PEERS", {**catalog.PEERS, "ORT": PeerKind("fp32", missing), "ncnn": PeerKind("int8", _broken)}
    )
    data = ("--data", str(reader[1]), "--seconds", "1", "--step")
    assert cli.main(["bench", "--model", reader[0], *data, "--peers", "torch int8,ORT,ncnn", "--json"]) == 0
    (lstm,) = json.loads(capsys.readouterr().out)["lstms"]
    assert lstm["name"] == "lstm"
    assert lstm["sequence"] == {}
    assert list(lstm["step"]) == ["torch", "torch int8", "adaptive fp32", "adaptive int8"]
    assert lstm["unavailable"]["ORT"] == "No module named 'abacus'"
    assert lstm["unavailable"]["ncnn"].startswith("excluded, its output is wrong: cosine -1.00 with torch")
    assert cli.main(["bench", reader[0], *data, "--peers", "ncnn"]) == 0
    text = capsys.readouterr().out
    assert "not timed: ncnn (excluded, its output is wrong" in text
    assert "error: largest, from torch fp32" in text
    assert "data.npz, batch 1, 1 thread on" in text


def _broken(order: BuildRequest) -> Engine:
    """torch, with the sign of every output turned."""
    engine = catalog.PEERS["torch"].builder(order)

    def forward(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h, c = engine.forward(x, h, c)
        return -y, h, c

    return replace(engine, forward=forward)


def test_bench_takes_the_inputs_of_bare_weights_and_refuses_others(
    reader: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, width in (("right", 3), ("wrong", 4)):
        torch.save(nn.LSTM(width, 5).state_dict(), tmp_path / f"{name}.pt")
    data = ("--data", reader[1], "--seconds", "1")
    assert cli.main(["bench", str(tmp_path / "right.pt"), *map(str, data), "--whole", "--json"]) == 0
    (lstm,) = json.loads(capsys.readouterr().out)["lstms"]
    assert list(lstm["sequence"]) == ["torch", "adaptive fp32", "adaptive int8"]
    assert lstm["step"] == {}
    for arguments, message in (
        ((tmp_path / "wrong.pt", *data), "takes [1, T, 4], float32"),
        (data, "--data needs MODEL too"),
        ((reader[0], "--model", reader[0]), "MODEL is given twice"),
        ((reader[0], "--peers", "abacus"), "unknown abacus, expected all, none or of torch, "),
        ((reader[0], "--step", "--whole"), "not allowed with"),
        ((reader[0].replace(":build", ":two"), *data), "fails on x [1, "),
    ):
        assert message in refused(capsys, "bench", *arguments), arguments


@pytest.fixture(scope="module")
def quick_outcome() -> DemoOutcome:
    task = digits.load_task()
    few = replace(
        task,
        fit_inputs=task.fit_inputs[:4],
        search_inputs=task.search_inputs[:8],
        test_inputs=task.test_inputs[:20],
        score=lambda outputs: 1.0,
        max_loss=0.3,
        families=lambda model: [Family(ExitInTime, head=model.get_submodule("fc"))],
    )
    return run(few, seconds=0.2)


@pytest.fixture
def quick_demo(monkeypatch: pytest.MonkeyPatch, quick_outcome: DemoOutcome) -> None:
    monkeypatch.setattr(command, "run", lambda task: quick_outcome)


@pytest.mark.usefixtures("quick_demo")
def test_demo_prints_json_and_says_where_the_figure_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--json", "--out", str(tmp_path / "demo.png")]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [row["name"] for row in found["rows"]][:2] == ["torch", "adaptive exact"]
    assert found["machine"]["threads"] == 1
    assert f"written: {tmp_path / 'demo.png'}" in captured.err
    assert (tmp_path / "demo.png").stat().st_size > 10_000


@pytest.mark.usefixtures("quick_demo")
def test_demo_without_matplotlib_prints_the_table_and_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "adaptive_lstm.cli.demo.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["demo", "--out", str(tmp_path / "demo.png")]) == 0
    captured = capsys.readouterr()
    assert "adaptive int8" in captured.out
    assert "pip install 'adaptive-lstm[demo]'" in captured.err
    assert not (tmp_path / "demo.png").exists()
