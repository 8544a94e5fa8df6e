"""One call of a stack as its nodes demand: their layout, direction, lengths and states."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..errors import InputError
from ..runtime.lstm import AdaptiveLSTM
from .moves import Form
from .scope import Scope
from .stack import Stack

State = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class StackCall:
    """Which values a stack reads and writes, all by name.

    ``name``: of the stack. ``key``: of its module in a model.
    ``layout``, ``directions``: as ``LstmNode`` has them. ``reverse``: it runs from the last timestep to the first.
    ``x``: its input; ``turned``: it is given with the dimensions of time and batch exchanged.
    ``lengths``: of the rows; empty: whole sequences.
    ``h``, ``c``: one initial state per layer; empty: zeros. None: all are zeros.
    ``y``, ``y_form``: the output of the last layer and how it lies; empty: not wanted.
    ``h_n``, ``c_n``: the last states of every layer; empty: not wanted.
    """

    name: str
    key: str
    layout: int
    directions: int
    reverse: bool
    x: str
    turned: bool
    lengths: str
    h: tuple[str, ...] | None
    c: tuple[str, ...] | None
    y: str
    y_form: Form
    h_n: tuple[str, ...]
    c_n: tuple[str, ...]

    @classmethod
    def of(cls, stack: Stack, key: str, scope: Scope) -> StackCall:
        """The call that the nodes of a stack make."""
        first = stack.nodes[0]
        h, c = tuple(node.h for node in stack.nodes), tuple(node.c for node in stack.nodes)
        given, before = any(h) or any(c), _turned(first.x, scope)
        return cls(
            stack.name,
            key,
            first.layout,
            first.directions,
            first.direction == "reverse",
            first.x if before is None else before,
            before is not None,
            first.lengths,
            h if given else None,
            c if given else None,
            stack.y,
            stack.y_form,
            tuple(node.y_h for node in stack.nodes),
            tuple(node.y_c for node in stack.nodes),
        )

    def only(self, wanted: Collection[str]) -> StackCall:
        """The same call, which makes those of its values that are wanted."""
        h_n, c_n = (tuple(n if n in wanted else "" for n in names) for names in (self.h_n, self.c_n))
        return replace(self, y=self.y if self.y in wanted else "", h_n=h_n, c_n=c_n)

    @property
    def reads(self) -> set[str]:
        """All values that it needs."""
        return {name for name in (self.x, self.lengths, *(self.h or ()), *(self.c or ())) if name}

    @property
    def writes(self) -> set[str]:
        """All values that it makes."""
        return {name for name in (self.y, *self.h_n, *self.c_n) if name}

    def run(self, lstm: AdaptiveLSTM, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """The values that it writes.

        Raises:
            InputError: an input or a state of another shape, or lengths that the input does not have.
        """
        x, time = as_tensor(values[self.x]), self.layout
        if x.dim() != 3:
            raise InputError(f"LSTM {self.name}: got an input of shape {tuple(x.shape)}, expected 3 dimensions")
        if self.turned:
            x = x.transpose(0, 1)
        lengths = self._lengths(values, x)
        hx = None
        if self.h is not None and self.c is not None:
            hx = self._state(self.h, x, values, lstm.hidden_size), self._state(self.c, x, values, lstm.hidden_size)
        if self.reverse:
            x = _reversed(x, lengths, time)
        y, (h, c) = lstm(x, hx) if lengths is None else _with_lengths(lstm, x, lengths, hx)
        if self.reverse:
            y = _reversed(y, lengths, time)
        return self._named(y, h, c)

    def _lengths(self, values: Mapping[str, Any], x: Tensor) -> Tensor | None:
        """Of every row; None: all are whole."""
        if not self.lengths:
            return None
        found, rows, steps = as_tensor(values[self.lengths]).long(), x.shape[1 - self.layout], x.shape[self.layout]
        if found.shape != (rows,) or not bool(((found >= 0) & (found <= steps)).all()):
            raise InputError(
                f"LSTM {self.name}: lengths {self.lengths}: got {found.tolist()}, expected {rows} whole numbers from 0 "
                f"to {steps}"
            )
        return None if bool((found == steps).all()) else found

    def _state(self, names: tuple[str, ...], x: Tensor, values: Mapping[str, Any], hidden: int) -> Tensor:
        """[L * D, B, H] from one state per layer."""
        rows = x.shape[1 - self.layout]
        expected = (rows, self.directions, hidden) if self.layout == 1 else (self.directions, rows, hidden)
        parts = []
        for name in names:
            part = as_tensor(values[name]) if name else x.new_zeros(expected)
            if part.shape != expected:
                raise InputError(
                    f"LSTM {self.name}: initial state {name}: got shape {tuple(part.shape)}, expected {expected} for "
                    f"an input of shape {tuple(x.shape)}"
                )
            parts.append(part.transpose(0, 1) if self.layout == 1 else part)
        return torch.cat(parts).contiguous()

    def _named(self, y: Tensor, h: Tensor, c: Tensor) -> dict[str, Tensor]:
        made = {}
        if self.y:
            made[self.y] = self._formed(y)
        for names, state in ((self.h_n, h), (self.c_n, c)):
            for layer, name in enumerate(names):
                if name:
                    part = state[layer * self.directions : (layer + 1) * self.directions]
                    made[name] = part.transpose(0, 1) if self.layout == 1 else part
        return made

    def _formed(self, y: Tensor) -> Tensor:
        if self.y_form == "node":
            parted = y.view(*y.shape[:2], self.directions, y.shape[2] // self.directions)
            return parted if self.layout == 1 else parted.transpose(1, 2)
        return y if (self.y_form == "batch") == (self.layout == 1) else y.transpose(0, 1)


def _turned(x: str, scope: Scope) -> str | None:
    """What a value is the transpose of, if time and batch are exchanged between the two."""
    maker = scope.makers.get(x)
    if maker is None or maker.op_type != "Transpose":
        return None
    return maker.input[0] if [list(a.ints) for a in maker.attribute] == [[1, 0, 2]] else None


def as_tensor(value: Any) -> Tensor:
    """An array as a tensor, in its own memory where that can be written; a tensor as it is."""
    if isinstance(value, torch.Tensor):
        return value
    return torch.from_numpy(value if value.flags.writeable else np.array(value))


def _reversed(x: Tensor, lengths: Tensor | None, time: int) -> Tensor:
    """Every row from its last timestep to its first; what follows it stays."""
    if lengths is None:
        return x.flip(time)
    steps = torch.arange(x.shape[time])
    order = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)  # [B, T]
    order = order if time == 1 else order.T
    return x.gather(time, order[:, :, None].expand_as(x))


def _with_lengths(lstm: AdaptiveLSTM, x: Tensor, lengths: Tensor, hx: State | None) -> tuple[Tensor, State]:
    """Rows of their own lengths: outputs behind the end are zero, and so is everything of a row without timesteps."""
    time = int(lstm.batch_first)
    rows, steps, d = x.shape[1 - time], x.shape[time], 1 + lstm.bidirectional
    y = x.new_zeros(*x.shape[:2], d * lstm.hidden_size)
    h, c = (x.new_zeros(lstm.num_layers * d, rows, lstm.hidden_size) for _ in range(2))
    alive = lengths.nonzero().flatten()
    if not len(alive):
        return y, (h, c)
    packed = pack_padded_sequence(x.index_select(1 - time, alive), lengths[alive], bool(time), enforce_sorted=False)
    out, (h_n, c_n) = lstm(packed, None if hx is None else (hx[0][:, alive], hx[1][:, alive]))
    some, _ = pad_packed_sequence(out, bool(time), total_length=steps)
    if len(alive) == rows:
        return some, (h_n, c_n)
    return y.index_copy(1 - time, alive, some), (h.index_copy(1, alive, h_n), c.index_copy(1, alive, c_n))
