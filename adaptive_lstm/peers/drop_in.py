"""A peer in the place of the LSTM inside any model, so that the model's own metric can be computed with it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..errors import InputError
from .catalog import engine_of
from .contender import Engine
from .lstm_inputs import reaching

State = tuple[Tensor, Tensor]


class Plugged(nn.Module):
    """A peer with the call signature of ``nn.LSTM``, for inference, and its settings as attributes; see ``plug``."""

    def __init__(self, lstm: nn.LSTM, engine: Engine, peer: str) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.proj_size = lstm.input_size, lstm.hidden_size, lstm.proj_size
        self.num_layers, self.bidirectional = lstm.num_layers, lstm.bidirectional
        self.bias, self.batch_first, self.dropout = lstm.bias, lstm.batch_first, lstm.dropout
        self.engine, self.peer = engine, peer

    def flatten_parameters(self) -> None:
        """Models call this on their LSTM; there is nothing to do."""

    def extra_repr(self) -> str:
        return f"{self.peer}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"

    @torch.no_grad()
    def forward(self, x: Any, hx: State | None = None) -> tuple[Any, State]:
        """As ``nn.LSTM.forward``: x [T, B, I], [B, T, I] if batch_first, [T, I], or a PackedSequence."""
        if isinstance(x, PackedSequence):
            return self._forward_packed(x, hx)
        self._check(x)
        if x.ndim == 2:
            state = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            y, (h, c) = self._run(x[None], self._state(state, 1))
            return y[0], (h[:, 0], c[:, 0])
        rows = x if self.batch_first else x.transpose(0, 1)
        y, state = self._run(rows, self._state(hx, len(rows)))
        return (y if self.batch_first else y.transpose(0, 1)), state

    def _run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, I], h and c [D * L, B, ...]."""
        native, tensor = self.engine.native, self.engine.tensor
        y, h, c = self.engine.forward(native(x), native(state[0]), native(state[1]))
        return tensor(y), (tensor(h), tensor(c))

    def _forward_packed(self, x: PackedSequence, hx: State | None) -> tuple[PackedSequence, State]:
        """All together where the runtime knows how; else those of one length in one call."""
        self._check(x.data)
        h, c = self._state(hx, int(x.batch_sizes[0]))
        if self.engine.packed is not None:
            packed, h, c = self.engine.packed(x, h, c)
            return packed, (h, c)
        padded, lengths = pad_packed_sequence(x, batch_first=True)
        alike: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(lengths.tolist()):
            alike[length].append(row)
        directions = 1 + self.bidirectional
        y = padded.new_zeros(*padded.shape[:2], directions * (self.proj_size or self.hidden_size))
        h, c = h.clone(), c.clone()
        for length, rows in alike.items():
            y[rows, :length], (h[:, rows], c[:, rows]) = self._run(padded[rows, :length], (h[:, rows], c[:, rows]))
        if x.sorted_indices is not None:  # None where the rows came sorted
            y, lengths = y[x.sorted_indices], lengths[x.sorted_indices]
        data = pack_padded_sequence(y, lengths, batch_first=True).data
        return PackedSequence(data, x.batch_sizes, x.sorted_indices, x.unsorted_indices), (h, c)

    def _state(self, hx: State | None, batch: int) -> State:
        rows = self.num_layers * (1 + self.bidirectional)
        shapes = (rows, batch, self.proj_size or self.hidden_size), (rows, batch, self.hidden_size)
        if hx is None:
            return torch.zeros(shapes[0]), torch.zeros(shapes[1])
        for what, given, shape in zip(("h", "c"), hx, shapes, strict=True):
            if tuple(given.shape) != shape:
                raise InputError(f"{what} of the initial state is {list(given.shape)}, expected {list(shape)}")
        return hx

    def _check(self, x: object) -> None:
        if not isinstance(x, Tensor) or x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"x must end in {self.input_size} features, in 2 or 3 dimensions or packed, got {got}")


def plug(lstm: nn.LSTM, name: str, *, threads: int = 1, inputs: Sequence[Tensor] = ()) -> nn.Module:
    """A module that runs the peer ``name`` of PEERS and can be called where ``lstm`` is, without gradients.

    threads, inputs: as for ``build``. The runtime's array and the state are converted at every call: measure time
    with ``build``, which keeps that out of the clock.

    Raises:
        InputError: an unknown name, or inputs of another width.
        ImportError: a package is missing.
        UnsupportedError: this stack, this processor or this version cannot run the peer as it should be run.
    """
    return Plugged(lstm, engine_of(lstm, name, threads=threads, inputs=inputs), name)


def replaced(model: nn.Module, name: str, *, threads: int = 1, inputs: Iterable[Any] = ()) -> nn.Module:
    """A copy of a model in which a peer stands in the place of every ``nn.LSTM``; a shared one stays shared.

    inputs: of the *model*, one or several calls' worth, for peers that calibrate: it is run on them.

    Raises:
        InputError: the model holds no ``nn.LSTM``; and what ``plug`` raises.
    """
    lstms = {where: module for where, module in model.named_modules() if isinstance(module, nn.LSTM)}
    if not lstms:
        raise InputError(f"{type(model).__name__} holds no torch.nn.LSTM, so there is nothing to replace")
    seen = reaching(model, inputs)
    peers = {id(one): plug(one, name, threads=threads, inputs=seen[where]) for where, one in lstms.items()}
    # What deepcopy finds in its memo it takes as it is: so peers also replace LSTMs that are shared or held in lists.
    return deepcopy(model, dict(peers))
