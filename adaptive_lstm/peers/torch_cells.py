"""torch's cells: what is written by whoever steps through a stack frame by frame and wants no ``nn.LSTM`` call."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedError
from . import torch_
from .contender import BuildRequest, Engine

_States = Tensor | tuple[Tensor, ...]  # [L, B, H], or [B, H] of every layer


def fp32(request: BuildRequest) -> Engine:
    """``nn.LSTMCell`` in a loop over the layers for single steps, float32; longer sequences run in ``nn.LSTM``.

    The state stays a tuple from step to step, as in a loop of one's own.
    """
    lstm = request.model.lstm
    if lstm.bidirectional or lstm.proj_size:
        raise UnsupportedError("nn.LSTMCell has one direction and no projection")
    cells, eager = [_cell(lstm, k) for k in range(lstm.num_layers)], torch_.fp32(request)

    def forward(x: Tensor, h: _States, c: _States) -> tuple[Tensor, _States, _States]:
        if x.shape[1] > 1:
            y, h, c = eager.forward(x, _stacked(h), _stacked(c))
            return y, h, c
        below, hs, cs = x[:, 0], [], []
        for k, cell in enumerate(cells):
            below, after = cell(below, (h[k], c[k]))
            hs.append(below)
            cs.append(after)
        return below[:, None], tuple(hs), tuple(cs)

    return Engine(eager.native, torch_.without_gradients(forward), _stacked, eager.nbytes, eager.packed)


def _cell(lstm: nn.LSTM, layer: int) -> nn.LSTMCell:
    cell = nn.LSTMCell(lstm.hidden_size if layer else lstm.input_size, lstm.hidden_size, lstm.bias)
    cell.load_state_dict({name: getattr(lstm, f"{name}_l{layer}") for name in cell.state_dict()})
    return cell.requires_grad_(False).eval()


def _stacked(value: Any) -> Tensor:
    return torch.stack(value) if isinstance(value, tuple) else value
