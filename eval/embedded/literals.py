"""Arrays as C."""

import numpy as np
from torch import Tensor, nn


def c_array(kind: str, name: str, values: np.ndarray) -> str:
    """A constant of a C type; floats with all their bits."""
    text = (f"{float(v).hex()}f" if values.dtype.kind == "f" else str(v) for v in values.ravel())
    return f"static const {kind} {name}[] = {{{', '.join(text)}}};\n"


def golden(lstm: nn.LSTM, x: np.ndarray, y: Tensor) -> str:
    """``golden.h``: the sizes, the inputs [T, I], and the outputs [T, H] of torch."""
    sizes = {"INPUTS": lstm.input_size, "OUTPUTS": lstm.hidden_size, "LAYERS": lstm.num_layers, "STEPS": len(x)}
    lines = "".join(f"#define {key} {value}\n" for key, value in sizes.items())
    return lines + c_array("float", "golden_x", x) + c_array("float", "golden_y", y.numpy())
