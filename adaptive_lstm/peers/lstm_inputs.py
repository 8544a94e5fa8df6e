"""What a model gives to its LSTMs: the inputs that peers are calibrated, checked and timed on."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ..model_io import call


def reaching(model: nn.Module, items: Iterable[Any]) -> dict[str, list[Tensor]]:
    """Run the model on every item (a tuple holds several arguments); LSTM by name -> sequences [1, T, I] in order.

    A state that the model hands over is left out: what is here starts from zeros.
    """
    lstms = {name: module for name, module in model.named_modules() if isinstance(module, nn.LSTM)}
    found: dict[str, list[Tensor]] = {name: [] for name in lstms}

    def listen(name: str, lstm: nn.LSTM) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            del module
            found[name] += _rows(arguments[0] if arguments else named["input"], lstm.batch_first)

        return lstm.register_forward_pre_hook(hook, with_kwargs=True)

    hooks = [listen(name, lstm) for name, lstm in lstms.items()]
    try:
        with torch.no_grad():
            for item in items:
                call(model, item)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _rows(x: Tensor | PackedSequence, batch_first: bool) -> list[Tensor]:
    """Every sequence of a batch by itself."""
    if isinstance(x, PackedSequence):
        padded, lengths = pad_packed_sequence(x, batch_first=True)
        return [padded[row : row + 1, :length].clone() for row, length in enumerate(lengths.tolist())]
    if x.ndim == 2:
        return [x[None].clone()]
    rows = x if batch_first else x.transpose(0, 1)
    return [row.contiguous() for row in rows.split(1)]
