"""Models as torch exports them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


class Tagger(nn.Module):
    """Frames [B, T, 12] and a state, or none -> linear -> 2 layers of 16 -> linear -> 1 layer of 10 -> 4 logits."""

    def __init__(self, bidirectional: bool = False):
        super().__init__()
        d = 1 + bidirectional
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.front = nn.Linear(12, 8)
            self.low = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=bidirectional)
            self.middle = nn.Linear(16 * d, 9)
            self.high = nn.LSTM(9, 10, batch_first=True, bidirectional=bidirectional)
            self.head = nn.Linear(10 * d, 4)
        self.eval()

    def forward(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        y, (h_n, c_n) = self.low(torch.relu(self.front(x)), None if h is None else (h, c))
        return self.head(self.high(self.middle(y))[0]), h_n, c_n


def exported(module: nn.Module, inputs: tuple[Any, ...], path: Path, *, dynamo: bool = False, **options: Any) -> Path:
    """An ONNX file of a module, whose batch and length are free; not by dynamo, for which an LSTM fixes its length."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            pytest.importorskip("onnxscript", reason="the exporter with dynamo=True needs onnxscript")
            torch.onnx.export(module, inputs, str(path), dynamo=True, verbose=False, **options)
        else:
            names = ["x", "h", "c"][: len(inputs)]
            axes = {"x": {0: "B", 1: "T"}} | {name: {1: "B"} for name in names[1:]}
            torch.onnx.export(
                module, inputs, str(path), dynamo=False, **{"input_names": names, "dynamic_axes": axes} | options
            )
    return path
