"""An LSTM in the int8 scheme of TensorFlow Lite, which CMSIS-NN shares.

Activations and weights are int8, with one scale for each matrix of a gate; all zero points are 0. Sums are rounded to
16 bits, 12 of them after the point; the cell has 16 bits.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from .literals import c_array

HIDDEN_BITS = 7  # h = integer / 2^7
CELL_POWER = -11  # c = integer * 2^-11
SUM_SCALE = 2.0**-12
GATES = 4  # in the order of torch: i, f, g, o


@dataclass(frozen=True)
class Gate:
    """Rows of one gate.

    Args:
        input, hidden: [H, I] and [H, H] int8.
        input_scale, hidden_scale: of these.
        bias: [H] int32, both of torch's, in units of the products of inputs and weights.
        x_scale: of the layer's inputs.
    """

    input: np.ndarray
    hidden: np.ndarray
    input_scale: float
    hidden_scale: float
    bias: np.ndarray
    x_scale: float

    @property
    def bias_scale(self) -> float:
        return self.x_scale * self.input_scale

    @property
    def nbytes(self) -> int:
        return self.input.nbytes + self.hidden.nbytes + self.bias.nbytes


def quantized(lstm: nn.LSTM, x: np.ndarray) -> tuple[tuple[Gate, ...], ...]:
    """The gates of every layer, with the scale of the inputs x [T, I]."""
    scales = [_scale(x), *[2.0**-HIDDEN_BITS] * (lstm.num_layers - 1)]
    return tuple(tuple(_gate(lstm, layer, k, scale) for k in range(GATES)) for layer, scale in enumerate(scales))


def _gate(lstm: nn.LSTM, layer: int, k: int, x_scale: float) -> Gate:
    rows = slice(k * lstm.hidden_size, (k + 1) * lstm.hidden_size)
    w, u, b, d = (
        getattr(lstm, f"{name}_l{layer}").detach().numpy()[rows]
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    w_scale, u_scale = _scale(w), _scale(u)
    bias = np.rint((b.astype(np.float64) + d) / (x_scale * w_scale)).astype(np.int32)
    return Gate(_rounded(w, w_scale), _rounded(u, u_scale), w_scale, u_scale, bias, x_scale)


def _scale(values: np.ndarray) -> float:
    return float(np.abs(values).max()) / 127


def _rounded(values: np.ndarray, scale: float) -> np.ndarray:
    return np.rint(values / scale).clip(-127, 127).astype(np.int8)


def _multiplier(factor: float) -> tuple[int, int]:
    """A factor as an integer of 31 bits and a power of two."""
    mantissa, power = math.frexp(factor)
    return round(mantissa * 2**31), power


def header(layers: tuple[tuple[Gate, ...], ...]) -> str:
    """``int8.h``."""
    arrays, rows = [], []
    for n, layer in enumerate(layers):
        for k, gate in enumerate(layer):
            names = {key: f"{key}_{n}_{k}" for key in ("input", "hidden", "bias")}
            arrays += [c_array("int8_t" if key != "bias" else "int32_t", name, getattr(gate, key))
                       for key, name in names.items()]  # fmt: skip
            of_input = _multiplier(gate.bias_scale / SUM_SCALE)
            of_hidden = _multiplier(2.0**-HIDDEN_BITS * gate.hidden_scale / SUM_SCALE)
            numbers = ", ".join(map(str, (*of_input, *of_hidden)))
            rows.append(f"{{{numbers}, {', '.join(names.values())}}}")
    table = ",\n".join(f"{{{', '.join(rows[n : n + GATES])}}}" for n in range(0, len(rows), GATES))
    return (
        "#include <stdint.h>\n"
        f"#define HIDDEN_BITS {HIDDEN_BITS}\n#define CELL_POWER {CELL_POWER}\n"
        f"#define INPUT_SCALE {layers[0][0].x_scale.hex()}f\n"
        "typedef struct {\n  int32_t input_multiplier, input_shift, hidden_multiplier, hidden_shift;\n"
        "  const int8_t *input, *hidden;\n  const int32_t *bias;\n} int8_gate;\n"
        + "".join(arrays)
        + f"static const int8_gate int8_gates[{len(layers)}][{GATES}] = {{{table}}};\n"
    )
