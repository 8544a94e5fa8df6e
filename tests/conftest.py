"""What every test shares: seeds, hypothesis settings, and the folder of real models."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

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


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real pretrained models and real data; it is not part of the project."""
    folder = Path(os.environ.get("ADAPTIVE_LSTM_ZOO", ROOT.parent / "shared" / "zoo"))
    if not folder.is_dir():
        pytest.skip(f"no folder of real models at {folder}; ADAPTIVE_LSTM_ZOO=PATH names another one")
    return folder
