"""What every test shares: seeds, hypothesis settings, and the folder of real models."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import settings

from adaptive_lstm.execution import route, torch_choice

from .support.eval_records import Record, Run

ROOT = Path(__file__).resolve().parents[1]

# No deadline: on a busy machine it fails tests at random. In CI the examples are the same at every run.
settings.register_profile("adaptive_lstm", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("adaptive_lstm")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """On a busy machine torch's own LSTM gets many times slower with more."""
    torch.set_num_threads(1)


@pytest.fixture
def races() -> None:
    """For tests of the races between torch and the native core."""


@pytest.fixture(autouse=True)
def _no_races(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the native core serves all it can: the winner of a race, and its last bits, depend on the clock."""
    if "races" not in request.fixturenames:
        monkeypatch.setattr(torch_choice, "races", lambda: False)


@pytest.fixture(scope="module")
def float64_on_reference() -> Iterator[None]:
    """The native core leaves float64 to the reference, which then computes in float64: exact enough to be an oracle."""
    with mock.patch.object(route, "THROUGH_FLOAT32", route.THROUGH_FLOAT32 - {torch.float64}):
        yield


@pytest.fixture(scope="session")
def zoo_if_any() -> Path:
    """Where the zoo would be, for models that ``eval.zoo fetch`` may have put into build/zoo instead."""
    return Path(os.environ.get("ADAPTIVE_LSTM_ZOO", ROOT.parent / "shared" / "zoo"))


@pytest.fixture(scope="session")
def zoo(zoo_if_any: Path) -> Path:
    """The folder of real pretrained models and real data; it is not part of the project."""
    if not zoo_if_any.is_dir():
        pytest.skip(f"no folder of real models at {zoo_if_any}; ADAPTIVE_LSTM_ZOO=PATH names another one")
    return zoo_if_any


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a script and returns what it printed as records, which all have a group and a case of their own."""

    def records(main: Callable[[list[str]], None], *arguments: str) -> list[Record]:
        main([*arguments, "--json", "--results", str(tmp_path)])
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len({(record["group"], record["case"]) for record in found}) == len(found) > 0
        return found

    return records


READER = """
import torch

class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = torch.nn.LSTM(3, 8, 2, batch_first=True)
        self.fc = torch.nn.Linear(8, 2)
        self.other = torch.nn.Linear(5, 2)

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.fc(y[:, -1])

def build():
    return Reader()

def two():
    return torch.nn.ModuleList([torch.nn.LSTM(3, 8), torch.nn.LSTM(8, 8)])

def unready():
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.LSTM(3, 8))
"""


@pytest.fixture
def reader(tmp_path: Path) -> tuple[str, Path]:
    """A factory as the command line takes it, and a file of 60 sequences of several lengths with targets."""
    (tmp_path / "reader.py").write_text(READER, encoding="utf-8")
    generator = np.random.default_rng(0)
    length = generator.integers(8, 14, 60)
    x = generator.standard_normal((int(length.sum()), 3)).cumsum(0).astype(np.float32) / 4
    np.savez(tmp_path / "data.npz", x=x, length=length, y=generator.integers(0, 2, 60))
    return f"{tmp_path / 'reader.py'}:build", tmp_path / "data.npz"
