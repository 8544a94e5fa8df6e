"""The LSTM of the demo, which reads handwritten digits column by column, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load

from ..artifact.stacks import Settings, Stack
from ..deploy import LSTM
from ..policies import Dense
from ..tensorfile import contents
from ..types import FloatArray, StackShape
from ..weights.matrices import CellMatrices
from ..weights.precision import Quantize
from ..weights.quantization import quantize_matrix

FILE = Path(__file__).parents[1] / "cli" / "demo" / "digits.safetensors"
SHAPE = StackShape(16, 160, 2)
NAME = "digits"


def demo() -> LSTM:
    """It in float32: 2 x 160, columns of 16 pixels."""
    weights = load(contents(FILE))

    def array(name: str, cell: int) -> FloatArray:
        return weights[f"lstm.{name}_l{cell}"].astype(np.float32)

    cells = tuple(
        CellMatrices(
            quantize_matrix(array("weight_ih", cell), "fp32", 0),
            quantize_matrix(array("weight_hh", cell), "fp32", 0),
            array("bias_ih", cell) + array("bias_hh", cell),
            None,
        )
        for cell in range(SHAPE.num_layers)
    )
    return LSTM(Stack(SHAPE, cells, Settings(Dense(), Quantize(), None)), "the demo")
