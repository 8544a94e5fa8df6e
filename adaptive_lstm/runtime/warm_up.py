"""``warm_up``: what the first calls of a model cost, paid before the first call that counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .. import model_io
from ..codec import brief, is_iterable, is_whole
from ..errors import InputError
from ..execution.torch_choice import ROUNDS
from ..types.states import MOST_ROWS
from .adapt import adapted_lstms, keep_settings
from .lstm import AdaptiveLSTM

# Torch and the native core serve so many of each in turn; then the native core serves twice as many itself before it is
# known whether several threads pay; and the last call is served as all later ones are.
CALLS = 3 * ROUNDS + 1


@model_io.runs_model
def warm_up(model: nn.Module, shapes: Iterable[Any]) -> None:
    """Pack the weights of an adapted model, and settle who serves its calls, on how many threads.

    Otherwise the first calls do: the very first one packs, and the first calls of a new batch size or length are served
    by torch and the native core in turn, where torch may be faster, and by one thread and several. With
    ``ADAPTIVE_LSTM_RACE=off`` all threads that have work serve; that and torch's deterministic mode leave all of them
    to the native core.

    ::

        al.warm_up(fast, [(1, 1), (8, 64)])  # (B, T): batch rows and timesteps, with zeros as inputs
        al.warm_up(fast, [batch])            # or inputs of the model: a tensor, or a tuple of arguments

    Nothing is left behind in the model, its monitors or statistics.

    Args:
        model: an adapted model in eval mode, or an ``AdaptiveLSTM``.
        shapes: pairs (B, T) that every LSTM of the model is called with, and cells with B rows; or inputs that the
            model is called with. One pair, tensor or dict alone is one of them.

    Raises:
        InputError: the model is not adapted or in training mode, or B or T is below 1.
    """
    lstms = adapted_lstms(model)
    if not is_iterable(shapes):
        raise InputError(f"shapes: got {type(shapes).__name__}, expected pairs (B, T), or inputs of the model")
    with torch.no_grad(), keep_settings(lstms.values()):
        for shape in [shapes] if _is_pair(shapes) else model_io.as_batches(shapes):
            for _ in range(CALLS):
                if _is_pair(shape):
                    for lstm in lstms.values():
                        lstm(_zeros(lstm, *shape))
                else:
                    model_io.call(model, shape)


def _is_pair(shape: Any) -> bool:
    return isinstance(shape, tuple | list) and len(shape) == 2 and all(is_whole(n) for n in shape)


def _zeros(lstm: AdaptiveLSTM, rows: int, timesteps: int) -> torch.Tensor:
    if not (1 <= rows <= MOST_ROWS and 1 <= timesteps <= MOST_ROWS):
        raise InputError(
            f"got the shape (B, T) = ({brief(rows)}, {brief(timesteps)}), expected at least 1 batch row and 1 "
            f"timestep, and at most {MOST_ROWS:,} of each"
        )
    timesteps = 1 if lstm.stack_shape.one_step else timesteps
    size = (rows, timesteps) if lstm.batch_first else (timesteps, rows)
    try:
        return next(lstm.parameters()).new_zeros(*map(int, size), lstm.input_size)
    except RuntimeError as error:
        raise InputError(
            f"got the shape (B, T) = ({rows}, {timesteps}), whose inputs do not fit into memory"
        ) from error
