"""An ``nn.LSTMCell`` in the form of an LSTM of one layer: so it is packed, compressed, recorded and saved like any."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ..execution.direct_call import Bypassed
from .lstm import AdaptiveLSTM


class CellAsLSTM(AdaptiveLSTM):
    """A cell in the form of an ``AdaptiveLSTM`` of one layer, whose calls hold one timestep; made by ``as_lstm``.

    The two are one object in two forms. They share every attribute: it has the cell's ``__dict__``. The weights are
    those of the cell at any time, under the names that an LSTM has for them (``weight_ih_l0``).
    """

    __slots__ = ("cell",)
    cell: nn.LSTMCell
    one_step = True
    num_layers, proj_size, dropout, mode = 1, 0, 0.0, "LSTM"
    bidirectional = batch_first = False

    @property
    def _parameters(self) -> dict[str, nn.Parameter | None]:  # type: ignore[override]
        return {f"{name}_l0": value for name, value in self.cell._parameters.items() if value is not None}

    @property
    def _flat_weights_names(self) -> list[str]:  # type: ignore[override]
        kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.cell.bias else ()))
        return [f"{kind}_l0" for kind in kinds]

    @property
    def _flat_weights(self) -> list[torch.Tensor]:  # type: ignore[override]
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def _bypassed(self) -> Bypassed | None:
        return vars(type(self.cell)).get("bypassed")  # not that of a base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name.removesuffix("_l0"))

    def _update_flat_weights(self) -> None:
        """Nothing: they are read from the cell."""

    def plain_forward(self, x: Any, hx: Any) -> Any:
        """``nn.LSTMCell.forward`` of one timestep [1, B, I] or [1, I], and of several ``nn.LSTM.forward``."""
        if x.shape[0] != 1:
            return super().plain_forward(x, hx)
        states = None if hx is None else tuple(state.squeeze(0) for state in hx)
        h, c = (state.unsqueeze(0) for state in nn.LSTMCell.forward(self.cell, x.squeeze(0), states))
        return h, (h, c)

    def __deepcopy__(self, memo: dict[int, Any]) -> CellAsLSTM:
        return as_lstm(copy.deepcopy(self.cell, memo))

    def __reduce__(self) -> Any:
        return as_lstm, (self.cell,)


def as_lstm(cell: nn.LSTMCell) -> CellAsLSTM:
    """A cell in the form of an LSTM."""
    made: CellAsLSTM = object.__new__(CellAsLSTM)
    for name, value in (("cell", cell), ("__dict__", cell.__dict__)):  # past nn.Module.__setattr__
        object.__setattr__(made, name, value)
    return made
