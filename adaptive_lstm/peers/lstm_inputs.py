"""The inputs of a model's LSTMs: peers are calibrated, checked and timed on them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ..model_io import call


def inputs_of_lstms(model: nn.Module, items: Iterable[Any]) -> dict[str, list[Tensor]]:
    """Run a model and record the inputs of its LSTMs.

    Args:
        model: in eval mode.
        items: inputs of the model, one per call; a tuple holds several arguments.

    Returns:
        Name of an LSTM -> sequences [1, T, I] in the order of the calls, without the initial states.
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
    """The sequences of a batch, one by one."""
    if isinstance(x, PackedSequence):
        padded, lengths = pad_packed_sequence(x, batch_first=True)
        return [padded[row : row + 1, :length].clone() for row, length in enumerate(lengths.tolist())]
    if x.ndim == 2:
        return [x[None].clone()]
    rows = x if batch_first else x.transpose(0, 1)
    return [row.contiguous() for row in rows.split(1)]
