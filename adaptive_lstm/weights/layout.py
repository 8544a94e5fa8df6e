"""From ``nn.LSTM`` to the weights that a backend executes: the only place that knows torch's names and gate order.

Tensors are used through their methods only, so that nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..types import FloatArray, StackShape

if TYPE_CHECKING:
    import torch
    from torch import nn

GATES = ("i", "f", "g", "o")
"""Input, forget, cell and output gate: torch's order of the H rows each has in W_ih, W_hh and the biases [4H]."""

Rows = TypeVar("Rows", bound="np.ndarray[Any, Any] | torch.Tensor")


def gate_rows(gate: str, hidden: int) -> slice:
    """The rows of one gate, of "i", "f", "g" and "o", in a matrix [4H, C] or a bias [4H]."""
    first = GATES.index(gate) * hidden
    return slice(first, first + hidden)


def split_gates(gates: Rows) -> tuple[Rows, Rows, Rows, Rows]:
    """Views i, f, g, o [..., H] of pre-activations [..., 4H]."""
    hidden = gates.shape[-1] // len(GATES)
    i, f, g, o = (gates[..., gate_rows(gate, hidden)] for gate in GATES)
    return i, f, g, o  # type: ignore[return-value]  # indexing a union of arrays and tensors keeps the kind


def rows_of_units(units: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One value per unit [H] as one per gate row [4H]."""
    return np.tile(units, len(GATES))


def gate_and_unit_of_rows(hidden: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The number of the gate, and of the unit, that every gate row belongs to: both [4H]."""
    gate, unit = np.divmod(np.arange(len(GATES) * hidden), hidden)
    return gate, unit


@dataclass(frozen=True)
class CellTensors:
    """Weights of one layer and direction as tensors, gates in torch's order.

    ``w_ih`` [4H, width], ``w_hh`` [4H, P]: the matrices.
    ``bias`` [4H]: both biases of torch, added.
    ``w_hr`` [P, H]: the projection, or None.
    ``x_levels``, ``h_levels``: the operand is rounded to multiples of 1/levels before it is multiplied; 0: not rounded.
    ``x_scale`` [width], float32: x_j is rounded to multiples of x_scale_j / levels and clipped at x_scale_j; or None.
    ``x_dynamic``: every row of x is rounded to multiples of (its own largest magnitude) / x_levels instead.
    ``live`` [H], bool: False for pruned units, whose c is 0; None: no unit is pruned.
    ``constant`` [H]: output of the pruned units, ahead of a projection; not read where ``live``. None if ``live`` is.
    """

    w_ih: torch.Tensor
    w_hh: torch.Tensor
    bias: torch.Tensor
    w_hr: torch.Tensor | None
    x_levels: int = 0
    h_levels: int = 0
    x_scale: torch.Tensor | None = None
    x_dynamic: bool = False
    live: torch.Tensor | None = None
    constant: torch.Tensor | None = None

    @functools.cached_property
    def nonzero_columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which columns of w_ih [width] and w_hh [P] are not all zero, bool; the others need never be sent."""
        return self.w_ih.detach().ne(0).any(dim=0), self.w_hh.detach().ne(0).any(dim=0)

    def to_device(self, like: torch.Tensor) -> CellTensors:
        """The same weights, detached, in the dtype and on the device of another tensor."""

        def to(value: torch.Tensor | None) -> torch.Tensor | None:
            return None if value is None else value.detach().to(like)

        return dataclasses.replace(
            self,
            w_ih=self.w_ih.detach().to(like),
            w_hh=self.w_hh.detach().to(like),
            bias=self.bias.detach().to(like),
            w_hr=to(self.w_hr),
            live=None if self.live is None else self.live.to(like.device),
            constant=to(self.constant),
        )


def shape_of(lstm: nn.LSTM) -> StackShape:
    """Sizes of an ``nn.LSTM``, or of a cell in the form of one."""
    sizes = lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.proj_size, lstm.bidirectional
    return StackShape(*sizes, getattr(lstm, "one_step", False))


def named_weights(lstm: nn.LSTM) -> dict[str, torch.Tensor]:
    """The current weights of an ``nn.LSTM`` by torch's names, each read once: parametrizations compute what is read.

    Raises:
        InputError: a weight holds no values: it is on the meta device, sharded (``DTensor``), or its memory was freed.
    """
    parameters = lstm._parameters
    named: dict[str, torch.Tensor] = {}
    for name in lstm._flat_weights_names:
        weight: torch.Tensor | None = parameters.get(name)
        if weight is None:
            weight = getattr(lstm, name, None)
        if weight is not None:
            if not _has_values(weight):
                kind = type(weight.data).__name__
                got = "weight whose memory was freed (its storage was resized)"
                if weight.is_meta or kind != "Tensor":
                    got = f"{kind} on {weight.device} that holds no values here"
                raise InputError(
                    f"{name}: got a {got}, expected its values; where a model is sharded, gather its weights before "
                    "the call (module.unshard()), and give a model of the meta device its weights "
                    "(load_state_dict(..., assign=True))"
                )
            named[name] = weight
    return named


def _has_values(weight: torch.Tensor) -> bool:
    if weight.is_meta:
        return False
    try:
        return not weight.is_cpu or not weight.numel() or weight.data_ptr() != 0
    except RuntimeError:  # wrappers refuse to tell of memory that they do not have
        return False


def tensors_of(lstm: nn.LSTM, weights: Mapping[str, torch.Tensor] | None = None) -> tuple[CellTensors, ...]:
    """The weights of an ``nn.LSTM``, one entry per layer and direction; gradients flow back to them.

    In float32 if the LSTM's dtype is narrower, so that the sum of two biases is not rounded again.

    Args:
        lstm: the module.
        weights: as ``named_weights`` gives them; by default it is asked.

    Raises:
        InputError: a weight is missing, or does not have the sizes that the module's attributes state.
    """
    shape, weights = shape_of(lstm), named_weights(lstm) if weights is None else weights
    named = {name: w.float() if w.dtype.itemsize < 4 else w for name, w in weights.items()}

    def need(kind: str, cell: int, *expected: int) -> torch.Tensor:
        name = f"{kind}_{shape.name(cell)}"
        found = named.get(name)
        got = "nothing" if found is None else tuple(found.shape)
        if found is None or got != expected:
            raise InputError(f"{name}: got {got}, expected shape {expected} for these sizes: {shape}")
        return found

    out = []
    gates, output = 4 * shape.hidden_size, shape.output_size
    for cell in range(shape.num_cells):
        w_ih = need("weight_ih", cell, gates, shape.input_width(cell))
        bias = w_ih.new_zeros(gates)
        if lstm.bias:
            bias = need("bias_ih", cell, gates) + need("bias_hh", cell, gates)
        w_hr = need("weight_hr", cell, output, shape.hidden_size) if shape.proj_size else None
        out.append(CellTensors(w_ih, need("weight_hh", cell, gates, output), bias, w_hr))
    return tuple(out)


def float32(tensor: torch.Tensor) -> FloatArray:
    """A tensor's values as a contiguous float32 array of its own.

    An array that shares a tensor's memory pins it: torch cannot resize that storage ever again, as FSDP2 does.
    """
    return np.ascontiguousarray(tensor.detach().cpu().float().clone().numpy())
