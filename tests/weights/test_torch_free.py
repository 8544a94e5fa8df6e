"""Weights as plain arrays must not need torch: what runs a saved model without torch will use them."""

import subprocess
import sys
from pathlib import Path

import adaptive_lstm

PROGRAM = """
import sys, types
import numpy as np

sys.modules["torch"] = None  # an import raises ImportError
package = types.ModuleType("adaptive_lstm")
package.__path__ = [sys.argv[1]]
sys.modules["adaptive_lstm"] = package

from adaptive_lstm.types import StackShape
from adaptive_lstm.weights import fingerprint, layout, matrices, precision, quantization, replaced

w = np.array([[1.0, -2.0], [0.5, 0.25]], np.float32)
matrix = quantization.quantize_matrix(w, "int8", 127)
assert np.abs(matrix.dequantized() - w).max() <= 2 / 127
assert layout.gate_rows("g", 3) == slice(6, 9)
precision.Quantize("int8").check(StackShape(2, 3, 1))
"""


def test_weights_import_without_torch() -> None:
    folder = str(Path(adaptive_lstm.__file__).parent)
    found = subprocess.run([sys.executable, "-c", PROGRAM, folder], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
