"""A saved model, and servers of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import deploy

from ..support.helpers import adapted
from .servers import Server

I, H, L = 5, 24, 2  # noqa: E741 (the letter of the input size everywhere)


@pytest.fixture(scope="package")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 model that holds timesteps: what a stream gives depends on all that came before, and on no other."""
    torch.manual_seed(0)
    fast = adapted(I, H, L, policy=al.SkipTimesteps(x_share=0.2))
    fast.quantize = al.Quantize("int8")
    path = tmp_path_factory.mktemp("model") / "model.alstm"
    al.save(fast, path, weights=True)
    return path


@pytest.fixture(scope="package")
def lstm(file: Path) -> deploy.LSTM:
    return deploy.load(file).lstm


@pytest.fixture(scope="package")
def server(file: Path) -> Iterator[Server]:
    """One with room for all."""
    with Server(str(file), "--name", "ears", "--streams-per-client", "512", "--backlog", "64") as server:
        yield server


@pytest.fixture(scope="package")
def strict(file: Path) -> Iterator[Server]:
    """One with tight limits."""
    limits = ("--streams", "4", "--streams-per-client", "3", "--backlog", "8", "--max-bytes", "2000")
    with Server(str(file), *limits, "--idle-timeout", "4", "--client-header", "x-client") as server:
        yield server
