"""An LSTM from arrays: weights of other frameworks, whose gates lie in another order, as an ``AdaptiveLSTM``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..codec import brief, check_flag
from ..errors import InputError
from ..weights.gate_order import check_order, in_torch_order
from .lstm import AdaptiveLSTM

Array = np.ndarray[Any, Any]

_NAME = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d+)(_reverse)?")
_EXPECTED = "expected w_ih, w_hh and up to two biases of each direction, as layer.get_weights() of Keras gives them"


class Cell(NamedTuple):
    """Weights of one layer and direction, gates in torch's order; None: there is none.

    ``weight_ih`` [4H, I or width], ``weight_hh`` [4H, P], ``bias_ih`` and ``bias_hh`` [4H], ``weight_hr`` [P, H].
    """

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None = None
    bias_hh: Array | None = None
    weight_hr: Array | None = None


def from_gates(
    arrays: Sequence[Any] | Mapping[Any, Any], order: str, *, bidirectional: bool = False, batch_first: bool = False
) -> AdaptiveLSTM:
    """An ``AdaptiveLSTM`` in eval mode, in float32, from arrays whose gates lie in any order.

    One layer is a sequence of w_ih, w_hh and no, one or two biases; with two directions, those of the forward one
    first. A stack is a sequence of layers, the lowest first. A mapping has torch's names (``weight_ih_l0``,
    ``bias_hh_l1_reverse``, ``weight_hr_l0``). So ``layer.get_weights()`` of a Keras layer is a layer here, with
    order="ifco".

    w_ih and w_hh may both be [4H, I] and [4H, H], or both transposed, [I, 4H] and [H, 4H], as in Keras: the shape of
    w_hh tells. Biases are [4H]; [8H] holds that of the input and that of the state (cuDNN, ONNX). The gates go through
    sigmoid and tanh: a Keras layer with ``recurrent_activation="hard_sigmoid"`` would give other results.

    Args:
        arrays: numpy arrays, tensors or nested lists of floats; copied.
        order: the gates as your arrays have them, four letters: i, f, o, and g, c, j or z for the cell gate.
            "ifgo" is torch's, "ifco" that of Keras, "iofc" that of ONNX.
        bidirectional: whether every layer holds two directions; of a mapping its names tell.
        batch_first: as of ``nn.LSTM``; Keras' layers take [B, T, I].

    Raises:
        InputError: the order does not name each gate once; arrays are missing, left over, no floats, or of shapes that
            no ``nn.LSTM`` has: layers of several widths are several LSTMs.
    """
    letters = check_order(order)
    for name, value in (("bidirectional", bidirectional), ("batch_first", batch_first)):
        check_flag(name, value)
    if isinstance(arrays, Mapping):
        layers = _of_names(arrays, letters)
    else:
        layers = [
            _of_layer(layer, f"layer {n}", letters, 1 + bool(bidirectional)) for n, layer in enumerate(_layers(arrays))
        ]
    return assembled(layers, batch_first=bool(batch_first), dtype=torch.float32)


def assembled(layers: Sequence[Sequence[Cell]], *, batch_first: bool, dtype: torch.dtype) -> AdaptiveLSTM:
    """A module in eval mode with copies of these weights.

    Args:
        layers: the cells of every layer, forward first.
        batch_first, dtype: as of ``nn.LSTM``.

    Raises:
        InputError: the shapes are not those of one ``nn.LSTM``.
    """
    first = layers[0][0]
    biased = any(cell.bias_ih is not None or cell.bias_hh is not None for layer in layers for cell in layer)
    lstm = AdaptiveLSTM(
        input_size=first.weight_ih.shape[1],
        hidden_size=first.weight_hh.shape[0] // 4,
        num_layers=len(layers),
        bias=biased,
        batch_first=batch_first,
        bidirectional=len(layers[0]) == 2,
        proj_size=0 if first.weight_hr is None else first.weight_hr.shape[0],
        dtype=dtype,
        device="meta",  # so that nobody's random numbers are drawn
    ).to_empty(device="cpu")
    for n, layer in enumerate(layers):
        if len(layer) != len(layers[0]):
            raise InputError(f"layer {n}: got {len(layer)} directions, expected {len(layers[0])} as in layer 0")
        for cell, suffix in zip(layer, ("", "_reverse"), strict=False):
            _fill(lstm, cell, f"l{n}{suffix}")
    return lstm.eval()


def _fill(lstm: AdaptiveLSTM, cell: Cell, name: str) -> None:
    for kind, value in cell._asdict().items():
        parameter = lstm._parameters.get(f"{kind}_{name}")
        if parameter is None:
            if value is not None:
                raise InputError(f"{kind}_{name}: got {value.shape}, expected none, as in layer 0")
            continue
        if value is None and kind.startswith("bias"):
            value = np.zeros(parameter.shape)
        if value is None or value.shape != parameter.shape:
            raise InputError(
                f"{kind}_{name}: got {'nothing' if value is None else value.shape}, expected {tuple(parameter.shape)} "
                f"for {lstm.stack_shape}; layers of several widths are several LSTMs"
            )
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _layers(arrays: Any) -> list[Any]:
    """The layers in what was given: itself, if it begins with a matrix."""
    given = list(arrays) if isinstance(arrays, (list, tuple)) else []
    if not given:
        got = "an empty list" if isinstance(arrays, (list, tuple)) else type(arrays).__name__
        raise InputError(f"arrays: got {got}, {_EXPECTED}")
    nested = isinstance(given[0], (list, tuple)) and len(given[0]) > 0 and np.ndim(_numbers(given[0][0])) == 2
    return given if nested else [given]


def _of_layer(layer: Any, name: str, order: str, directions: int) -> list[Cell]:
    """The cells of one layer."""
    if not isinstance(layer, (list, tuple)):
        raise InputError(f"{name}: got {type(layer).__name__}, {_EXPECTED}")
    found: list[tuple[list[Array], list[Array]]] = []  # the matrices and the biases of each direction
    for n, value in enumerate(layer):
        array = _floats(value, f"{name}, array {n}")
        if array.ndim == 2:
            if not found or len(found[-1][0]) == 2 or found[-1][1]:
                found.append(([], []))
            found[-1][0].append(array)
        elif array.ndim == 1 and found:
            found[-1][1].append(array)
        else:
            raise InputError(f"{name}, array {n}: got {array.shape}, {_EXPECTED}")
    if len(found) != directions:
        more = "; bidirectional=True says that every layer holds two, and a stack is a list with a list for each layer"
        raise InputError(f"{name}: got the weights of {len(found)} directions, expected {directions}{more}")
    return [_cell(matrices, biases, name, order) for matrices, biases in found]


def _cell(matrices: list[Array], biases: list[Array], name: str, order: str) -> Cell:
    if len(matrices) != 2 or len(biases) > 2:
        raise InputError(
            f"{name}: got {len(matrices)} matrices and {len(biases)} biases, {_EXPECTED}; split a kernel of both, "
            "[I + H, 4H], into kernel[:I] and kernel[I:]; there is no room for peepholes"
        )
    w_ih, w_hh = matrices
    rows, columns = w_hh.shape
    if columns == 4 * rows:
        w_ih, w_hh = w_ih.T, w_hh.T
    elif rows != 4 * columns:
        raise InputError(f"{name}, w_hh: got {w_hh.shape}, expected [4H, H] or [H, 4H]")
    gates = len(w_hh)
    if len(w_ih) != gates:
        raise InputError(
            f"{name}, w_ih: got {matrices[0].shape} beside w_hh {matrices[1].shape}, expected {gates} = 4H"
        )
    if len(biases) == 1 and biases[0].shape == (2 * gates,):
        biases = np.split(biases[0], 2)
    for bias in biases:
        if bias.shape != (gates,):
            raise InputError(f"{name}, bias: got {bias.shape}, expected [4H], {gates} numbers")
    return Cell(*(in_torch_order(array, order) for array in (w_ih, w_hh, *biases)))


def _of_names(arrays: Mapping[Any, Any], order: str) -> list[list[Cell]]:
    """The cells of every layer of a mapping with torch's names."""
    parts: dict[tuple[int, bool], dict[str, Array]] = {}
    for name, value in arrays.items():
        read = _NAME.fullmatch(name) if isinstance(name, str) else None
        if read is None:
            raise InputError(f"arrays: got the name {brief(name)}, expected torch's, such as weight_ih_l0, bias_hh_l0")
        array = _floats(value, name)
        if read[1] != "weight_hr":
            if array.ndim not in (1, 2) or len(array) % 4:
                raise InputError(f"{name}: got {array.shape}, expected 4H rows")
            array = in_torch_order(array, order)
        parts.setdefault((int(read[2]), read[3] is not None), {})[read[1]] = array
    directions = 1 + any(reverse for _, reverse in parts)
    wanted = [(n, reverse) for n in range(len(parts) // directions) for reverse in (False, True)[:directions]]
    if sorted(parts) != wanted or not wanted:
        raise InputError(f"arrays: got {', '.join(arrays) or 'nothing':.200}, expected all cells of layers 0, 1, ...")
    for (n, _), one in parts.items():
        if not {"weight_ih", "weight_hh"} <= one.keys() or any(one[k].ndim != 2 for k in one if "weight" in k):
            raise InputError(f"layer {n}: got {', '.join(one)}, expected the matrices weight_ih and weight_hh")
    cells = [Cell(**parts[key]) for key in wanted]
    return [cells[n : n + directions] for n in range(0, len(cells), directions)]


def _numbers(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _floats(value: Any, name: str) -> Array:
    """A value as an array of float32."""
    try:
        array = np.asarray(_numbers(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: got {type(value).__name__}, expected an array of floats ({error})") from error
    if array.dtype.kind != "f":
        raise InputError(f"{name}: got {type(value).__name__} of {array.dtype}, expected an array of floats")
    return array.astype(np.float32)
