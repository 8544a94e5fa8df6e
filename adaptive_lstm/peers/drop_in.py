"""Replace the LSTMs inside a model by a peer, so that the model's own metric can be computed with it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..errors import InputError
from .catalog import build_engine
from .contender import Engine
from .lstm_inputs import inputs_of_lstms

HiddenAndCell = tuple[Tensor, Tensor]


class DropInPeer(nn.Module):
    """A peer with the call signature and the attributes of ``nn.LSTM``, for inference; see ``drop_in_peer``."""

    def __init__(self, lstm: nn.LSTM, engine: Engine, peer: str) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.proj_size = lstm.input_size, lstm.hidden_size, lstm.proj_size
        self.num_layers, self.bidirectional = lstm.num_layers, lstm.bidirectional
        self.bias, self.batch_first, self.dropout = lstm.bias, lstm.batch_first, lstm.dropout
        self.engine, self.peer = engine, peer

    def flatten_parameters(self) -> None:
        """Does nothing; models may call it on their LSTM."""

    def extra_repr(self) -> str:
        return f"{self.peer}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"

    @torch.no_grad()
    def forward(self, x: Any, hx: HiddenAndCell | None = None) -> tuple[Any, HiddenAndCell]:
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

    def _run(self, x: Tensor, state: HiddenAndCell) -> tuple[Tensor, HiddenAndCell]:
        """x [B, T, I], h and c [D * L, B, ...]."""
        native, tensor = self.engine.native, self.engine.tensor
        y, h, c = self.engine.forward(native(x), native(state[0]), native(state[1]))
        return tensor(y), (tensor(h), tensor(c))

    def _forward_packed(self, x: PackedSequence, hx: HiddenAndCell | None) -> tuple[PackedSequence, HiddenAndCell]:
        """One call if the runtime takes a PackedSequence, otherwise one call per length."""
        self._check(x.data)
        h, c = self._state(hx, int(x.batch_sizes[0]))
        if self.engine.packed is not None:
            packed, h, c = self.engine.packed(x, h, c)
            return packed, (h, c)
        padded, lengths = pad_packed_sequence(x, batch_first=True)
        rows_by_length: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(lengths.tolist()):
            rows_by_length[length].append(row)
        directions = 1 + self.bidirectional
        y = padded.new_zeros(*padded.shape[:2], directions * (self.proj_size or self.hidden_size))
        h, c = h.clone(), c.clone()
        for length, rows in rows_by_length.items():
            y[rows, :length], (h[:, rows], c[:, rows]) = self._run(padded[rows, :length], (h[:, rows], c[:, rows]))
        if x.sorted_indices is not None:  # None if the rows were sorted
            y, lengths = y[x.sorted_indices], lengths[x.sorted_indices]
        data = pack_padded_sequence(y, lengths, batch_first=True).data
        return PackedSequence(data, x.batch_sizes, x.sorted_indices, x.unsorted_indices), (h, c)

    def _state(self, hx: HiddenAndCell | None, batch: int) -> HiddenAndCell:
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


def drop_in_peer(lstm: nn.LSTM, name: str, *, threads: int = 1, inputs: Sequence[Tensor] = ()) -> nn.Module:
    """A module that runs a peer and can be called in place of ``lstm``, without gradients.

    Every call converts arrays and the state. To measure time use ``build``, which converts outside the timed part.

    Args:
        lstm: any; its weights are copied.
        name: of PEERS.
        threads, inputs: as for ``build``.

    Raises:
        InputError: an unknown name, or inputs of another width.
        ImportError: a package is missing.
        UnsupportedError: the peer cannot run this stack properly on this processor or in this version.
    """
    return DropInPeer(lstm, build_engine(lstm, name, threads=threads, inputs=inputs), name)


def with_peer(model: nn.Module, name: str, *, threads: int = 1, inputs: Iterable[Any] = ()) -> nn.Module:
    """A copy of a model in which a peer replaces every ``nn.LSTM``; a shared LSTM stays shared.

    Args:
        model: any; it is not changed.
        name: of PEERS.
        threads: as for ``build``.
        inputs: of the *model*, an item per call, for peers that calibrate: the model is run on them.

    Raises:
        InputError: the model has no ``nn.LSTM``; and whatever ``drop_in_peer`` raises.
    """
    lstms = {where: module for where, module in model.named_modules() if isinstance(module, nn.LSTM)}
    if not lstms:
        raise InputError(f"{type(model).__name__} has no torch.nn.LSTM: nothing to replace")
    seen = inputs_of_lstms(model, inputs)
    peers = {id(one): drop_in_peer(one, name, threads=threads, inputs=seen[where]) for where, one in lstms.items()}
    # deepcopy takes from its memo as is: so LSTMs that are shared or held in lists are replaced too.
    return deepcopy(model, dict(peers))
