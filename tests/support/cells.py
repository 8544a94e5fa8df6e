"""``nn.LSTMCell`` and models that call it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import adaptive_lstm as al


def cell_of(inputs: int, hidden: int, *, seed: int = 0, **options: Any) -> nn.LSTMCell:
    """An ``nn.LSTMCell`` in eval mode with weights from a seed."""
    cell = nn.LSTMCell(inputs, hidden, **options).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.uniform_(-(hidden**-0.5), hidden**-0.5, generator=generator)
    return cell


def adapted(cell: nn.LSTMCell, precision: Any = "fp32") -> al.AdaptiveLSTMCell:
    fast = al.AdaptiveLSTMCell.from_cell(cell)
    fast.quantize = al.Quantize(precision)
    return fast


class Decoder(nn.Module):
    """Sequence to sequence: an encoder, and a decoder of two cells one above the other with attention between."""

    def __init__(self, inputs: int = 6, hidden: int = 8, words: int = 5):
        super().__init__()
        self.encoder = nn.LSTM(inputs, hidden, batch_first=True)
        self.embedding = nn.Embedding(words, inputs)
        self.cells = nn.ModuleList([nn.LSTMCell(inputs + hidden, hidden), nn.LSTMCell(hidden, hidden)])
        self.words = nn.Linear(hidden, words)

    def forward(self, x: torch.Tensor, steps: int = 4) -> torch.Tensor:
        """Scores [B, steps, words] of sequences x [B, T, I]."""
        seen, (h, c) = self.encoder(x)
        word = torch.zeros(len(x), dtype=torch.long)
        states = [(h[0], c[0]), (h[0], c[0])]
        scores = []
        for _ in range(steps):
            weights = torch.softmax((seen @ states[1][0][:, :, None])[..., 0], 1)
            context = (weights[:, None] @ seen)[:, 0]
            states[0] = self.cells[0](torch.cat([self.embedding(word), context], 1), states[0])
            states[1] = self.cells[1](states[0][0], states[1])
            scores.append(self.words(states[1][0]))
            word = scores[-1].argmax(1)
        return torch.stack(scores, 1)


class LastState(nn.Module):
    """The last output of a cell that steps through sequences x [B, T, I]."""

    def __init__(self, cell: nn.LSTMCell):
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: tuple[torch.Tensor, torch.Tensor] | None = None
        for step in x.unbind(1):
            states = self.cell(step, states)
        assert states is not None
        return states[0]
