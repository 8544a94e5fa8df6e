"""What a .traineddata file of Tesseract holds: the network for lines of text, and the characters that it tells apart.

Written from Tesseract's own reader (tesseract-ocr/tesseract, ccutil/tessdatamanager.cpp, lstm/network.cpp,
lstm/weightmatrix.cpp, ccutil/unicharcompress.h): little-endian numbers, no alignment.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from adaptive_lstm.types import FloatArray

NETWORK, UNICHARSET, RECODER = 17, 21, 22  # places in the table of contents
GATES = "gifo"  # of an LSTM in the file: cell input, input gate, forget gate, output gate
_INT8, _DOUBLE, _OWN_RATES = 1, 128, 64
_PLUMBING = ("Series", "Parallel", "RTLReversed", "TTBReversed", "XYTranspose")
_NUMBERS = {"Input": 5, "Convolve": 2, "Maxpool": 2, "Reconfig": 2}  # settings that these kinds have
_MATRICES = {"LSTM": 4, "SummLSTM": 4, "Tanh": 1, "Softmax": 1, "Linear": 1, "Relu": 1, "Logistic": 1}


@dataclass(frozen=True, eq=False)
class Matrix:
    """Weights [O, I + 1]; the last column is the bias.

    ``integers``: as the file has them. ``scales`` [O]: the real weights are ``integers * scales[:, None]``.
    """

    integers: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float64]

    @property
    def weights(self) -> FloatArray:
        """[O, I + 1] float32."""
        found: FloatArray = (self.integers * self.scales[:, None]).astype(np.float32)
        return found


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of the network, or layers in a row.

    ``kind``, ``name``: as in the file. ``inputs``, ``outputs``: features.
    ``settings``: other numbers. ``layers``: inside. ``matrices``: weights; an LSTM's are its gates, as ``GATES``.
    """

    kind: str
    name: str
    inputs: int
    outputs: int
    settings: tuple[int, ...]
    layers: tuple[Layer, ...]
    matrices: tuple[Matrix, ...]

    def find(self, name: str) -> Layer:
        """The layer of this name inside, at any depth; KeyError: there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
            try:
                return layer.find(name)
            except KeyError:
                continue
        raise KeyError(name)


def entry(content: bytes, number: int) -> bytes:
    """One entry of a file.

    Raises:
        ValueError: it has none at this place of its table.
    """
    (count,) = struct.unpack_from("<i", content)
    starts = struct.unpack_from(f"<{count}q", content, 4)
    if not 0 <= number < count or starts[number] < 0:
        raise ValueError(f"got a file of {count} entries without number {number}, expected one with an LSTM network")
    return content[starts[number] : min((s for s in starts if s > starts[number]), default=len(content))]


def network(content: bytes) -> tuple[Layer, str]:
    """The network in a file and its description in Tesseract's language.

    Raises:
        ValueError: it holds none, one with other layers than are known here, or one whose weights are not int8.
    """
    cursor = _Cursor(entry(content, NETWORK))
    return _layer(cursor), cursor.text()


def characters(content: bytes) -> dict[int, str]:
    """Text by output of the network; an output without text is the blank of CTC."""
    lines = entry(content, UNICHARSET).decode().splitlines()
    (count,) = map(int, lines[:1])
    texts = [line.split(" ")[0] for line in lines[1 : count + 1]]
    cursor, found = _Cursor(entry(content, RECODER)), {}
    for number in range(cursor.one("I")):
        cursor.one("b")
        codes = cursor.some("i", cursor.one("i"))
        if len(codes) != 1:
            raise ValueError(f"got a character of {len(codes)} outputs, expected one output for each")
        if number not in (1, 2):  # "joined" and "broken" stand for none
            found[codes[0]] = " " if number == 0 else texts[number]
    return found


class _Cursor:
    """A place in bytes that moves as they are read."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def some(self, kind: str, count: int) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{count}{kind}", self.content, self.at)
        self.at += struct.calcsize(f"<{count}{kind}")
        return found

    def one(self, kind: str) -> Any:
        return self.some(kind, 1)[0]

    def text(self) -> str:
        return bytes(self.some("B", self.one("I"))).decode()

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        found = np.frombuffer(self.content, np.dtype(dtype), count, self.at)
        self.at += found.nbytes
        return found


def _layer(cursor: _Cursor) -> Layer:
    if (kind_number := cursor.one("b")) != 0:
        raise ValueError(f"got a layer of kind number {kind_number}, expected its kind as text")
    kind = cursor.text()
    cursor.some("b", 2)  # whether it learns, and hands gradients back
    flags, inputs, outputs, _ = cursor.some("i", 4)
    name = cursor.text()
    settings: tuple[int, ...] = ()
    layers: tuple[Layer, ...] = ()
    if kind in _PLUMBING:
        layers = tuple(_layer(cursor) for _ in range(cursor.one("I")))
        if flags & _OWN_RATES:
            cursor.some("f", cursor.one("I"))
    elif kind in _NUMBERS:
        settings = cursor.some("i", _NUMBERS[kind])
    elif kind not in _MATRICES:
        raise ValueError(
            f"got a layer of kind {kind!r}, expected one of {', '.join((*_PLUMBING, *_NUMBERS, *_MATRICES))}"
        )
    elif kind.endswith("LSTM"):
        settings = (cursor.one("i"),)
        if settings[0] != inputs + outputs:
            raise ValueError(f"layer {name}: got {settings[0]} inputs of a gate, expected {inputs} + {outputs}")
    return Layer(
        kind, name, inputs, outputs, settings, layers, tuple(_matrix(cursor) for _ in range(_MATRICES.get(kind, 0)))
    )


def _matrix(cursor: _Cursor) -> Matrix:
    mode = cursor.one("B")
    if not mode & _INT8 or not mode & _DOUBLE:
        raise ValueError(f"got weights of mode {mode}, expected int8 ones with scales in float64")
    rows, columns = cursor.some("I", 2)
    cursor.one("b")  # what fills an empty array
    integers = cursor.array("i1", rows * columns).reshape(rows, columns)
    return Matrix(integers, cursor.array("<f8", cursor.one("I")))
