"""The inputs and outputs of a graph, and what is given for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError, UnsupportedError
from .part import type_name

if TYPE_CHECKING:
    from onnx import ValueInfoProto

_NAMES = {
    "float": "float32",
    "double": "float64",
}  # what numpy and torch call the types of ONNX that they name otherwise


@dataclass(frozen=True)
class Value:
    """As ``NodeArg`` of ONNX Runtime.

    ``name``: in the graph.
    ``shape``: sizes; a name or None stands for any. Empty where the graph states no shape, as for a scalar.
    ``type``: "tensor(float)", for example.
    """

    name: str
    shape: list[int | str | None]
    type: str
    stated: bool = field(default=True, repr=False)  # whether the graph says anything about the shape

    @classmethod
    def of(cls, info: ValueInfoProto) -> Value:
        """Raises ``UnsupportedError`` for what is no tensor."""
        if not info.type.HasField("tensor_type"):
            raise UnsupportedError(f"{info.name} is no tensor, expected tensors as inputs and outputs of the graph")
        tensor = info.type.tensor_type
        sizes = [_size(d) for d in tensor.shape.dim]
        return cls(info.name, sizes, type_name(tensor.elem_type), tensor.HasField("shape"))

    @property
    def dtype(self) -> str:
        """Its element type, as numpy and torch call it."""
        name = self.type[len("tensor(") : -1]
        return _NAMES.get(name, name)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the graph allows this shape."""
        sizes = self.shape
        same = len(shape) == len(sizes) and all(
            not isinstance(want, int) or want == got for got, want in zip(shape, sizes, strict=True)
        )
        return same or not self.stated


def _size(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None


def check(given: Mapping[str, Any], inputs: Sequence[Value]) -> None:
    """Compare arrays or tensors with the inputs of a graph.

    Args:
        given: by name.
        inputs: all of them.

    Raises:
        InputError: names that are missing or unknown, another dtype, or another shape.
    """
    names = [value.name for value in inputs]
    if given.keys() != set(names):
        missing, unknown = [n for n in names if n not in given], [n for n in given if n not in names]
        told = [
            f"{word} {', '.join(map(repr, some))}"
            for word, some in (("missing", missing), ("unknown", unknown))
            if some
        ]
        raise InputError(f"inputs: {'; '.join(told)}; expected {', '.join(map(repr, names))}")
    for value in inputs:
        got = given[value.name]
        if not hasattr(got, "shape") or not hasattr(got, "dtype"):
            raise InputError(f"input {value.name}: got {type(got).__name__}, expected {_described(value)}")
        dtype = str(got.dtype).removeprefix("torch.") if isinstance(got, torch.Tensor) else got.dtype.name
        if value.dtype == "string" and dtype.startswith(("str", "object", "bytes")):
            dtype = "string"
        if dtype != value.dtype:
            raise InputError(f"input {value.name}: got {dtype}, expected {_described(value)}")
        if not value.fits(tuple(got.shape)):
            raise InputError(f"input {value.name}: got shape {tuple(got.shape)}, expected {_described(value)}")


def _described(value: Value) -> str:
    return f"{value.dtype} [{', '.join('?' if size is None else str(size) for size in value.shape)}]"
