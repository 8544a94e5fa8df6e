"""How far the inputs of LSTMs reach: runs a model over inputs and keeps the largest magnitude of every column."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, NonFiniteError
from ..model_io import as_batches, call
from ..types import FloatArray


def input_ranges(model: nn.Module, inputs: Iterable[Any], names: Collection[str]) -> dict[str, FloatArray]:
    """Largest ``|x_j|`` that each named LSTM of a model is given over all inputs, by name: [I].

    Args:
        model: in eval mode.
        inputs: batches, each as the model takes it: a tensor, a ``PackedSequence``, or a tuple of arguments. One tensor
            alone is one batch.
        names: of modules that are ``nn.LSTM``.

    Raises:
        InputError: training mode, no inputs, or an LSTM that the model does not call.
        NonFiniteError: an LSTM is given NaN or infinity.
    """
    lstms = {name: model.get_submodule(name) for name in names}
    if any(lstm.training for lstm in lstms.values()):
        raise InputError("the model is in training mode; call .eval() on it first")
    largest: dict[str, FloatArray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(lstm: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            rows = (x.data if isinstance(x, PackedSequence) else x).detach()
            now = rows.reshape(-1, rows.shape[-1]).abs().amax(dim=0).to("cpu", torch.float32).numpy()
            if not np.isfinite(now).all():
                raise NonFiniteError(f"{name or 'the LSTM'} was given NaN or infinity; clean the inputs")
            largest[name] = np.maximum(now, largest.get(name, 0.0))

        return hook

    hooks = [lstm.register_forward_pre_hook(keep(name), with_kwargs=True) for name, lstm in lstms.items()]
    try:
        with torch.no_grad():
            for item in as_batches(inputs):
                call(model, item)
    finally:
        for handle in hooks:
            handle.remove()
    if missed := [name or "the LSTM" for name in names if name not in largest]:
        raise InputError(f"inputs: none reached {', '.join(missed)} (an iterator that was used up?)")
    return largest
