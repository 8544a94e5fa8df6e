"""``adapt`` makes the LSTMs and cells of a model adaptive; finding them in a model and keeping their settings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from ..errors import InputError
from ..model_io import copied
from .cell import AdaptiveLSTMCell
from .cell_as_lstm import as_lstm
from .conversion import convert, plain_class
from .lstm import AdaptiveLSTM

ADAPTIVE: dict[type[nn.Module], type[nn.Module]] = {nn.LSTM: AdaptiveLSTM, nn.LSTMCell: AdaptiveLSTMCell}
"""What ``adapt`` puts in the place of what."""

Model = TypeVar("Model", bound=nn.Module)
_log = logging.getLogger("adaptive_lstm")


def lstms_of(model: nn.Module) -> dict[str, AdaptiveLSTM]:
    """The adapted LSTMs of a model, by module name; cells in the form of LSTMs (``CellAsLSTM``).

    Raises:
        InputError: there is none.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got {type(model).__name__}, expected a torch.nn.Module that adaptive_lstm.adapt gave")
    lstms = {
        name: m.as_lstm if isinstance(m, AdaptiveLSTMCell) else m
        for name, m in model.named_modules()
        if isinstance(m, AdaptiveLSTM | AdaptiveLSTMCell)
    }
    if not lstms:
        raise InputError(
            "the model holds no AdaptiveLSTM or AdaptiveLSTMCell; convert it first: fast = adaptive_lstm.adapt(model)"
        )
    return lstms


def adapted_lstms(model: nn.Module) -> dict[str, AdaptiveLSTM]:
    """The adapted LSTMs of a model in eval mode, by module name; cells as ``lstms_of`` gives them.

    Raises:
        InputError: there is none, or the model or one of them is in training mode.
    """
    lstms = lstms_of(model)
    if model.training or any(lstm.training for lstm in lstms.values()):  # dropout around them counts too
        raise InputError("the model is in training mode; call .eval() on it first")
    return lstms


@contextmanager
def keep_settings(lstms: Iterable[AdaptiveLSTM]) -> Iterator[None]:
    """Plan, last run and monitor are put back after the block, of which the monitor sees nothing."""
    kept = [(lstm, lstm._plan, lstm._monitor, lstm._last) for lstm in lstms]
    for lstm, *_ in kept:
        lstm._monitor = None
    try:
        yield
    finally:
        for lstm, plan, monitor, last in kept:
            lstm._set(plan, monitor)  # as it was, even if the parameters have changed since
            lstm._last = last


def adapt(model: Model) -> Model:
    """A deep copy of a model in which every ``nn.LSTM`` is an ``AdaptiveLSTM`` and every ``nn.LSTMCell`` adaptive too.

    However nested or shared they are. Outputs are those of the model until a policy or a precision is set. Cells become
    ``AdaptiveLSTMCell``, each for itself, also where one is called after the other. Parametrized ones are converted
    and stay parametrized; other subclasses of both are not, and a warning names them. Other recurrent modules
    (``GRU``, ``RNN``) stay as they are; the logger "adaptive_lstm" names them.

    Raises:
        InputError: the model holds neither; the message names the recurrent modules that it holds.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"got {type(model).__name__}, expected a torch.nn.Module")
    fast = copied(model)
    found = [(name, m) for name, m in fast.named_modules() if isinstance(m, nn.LSTM | nn.LSTMCell)]
    others = ", ".join(_other_recurrent(fast))
    if not found:
        held = f"; it holds {others}, and only those two are converted" if others else ", so there is nothing to adapt"
        raise InputError(f"{type(model).__name__} holds no torch.nn.LSTM or LSTMCell{held}")
    if others:
        _log.warning("adapt leaves these as they are; torch.nn.LSTM and LSTMCell are converted: %s", others)
    kept = [name or type(m).__name__ for name, m in found if not _known(m)]
    if kept:
        warnings.warn(
            f"not converted, because they are subclasses of nn.LSTM or nn.LSTMCell: {', '.join(kept)}",
            UserWarning,
            stacklevel=2,
        )
    for _, module in found:
        if plain_class(module) in ADAPTIVE:
            convert(module, ADAPTIVE[plain_class(module)])
    return fast


def adaptable(model: nn.Module) -> dict[str, nn.LSTM]:
    """What ``adapt`` converts in a model, or has converted, by module name; cells in the form of LSTMs."""
    return {
        name: m if isinstance(m, nn.LSTM) else as_lstm(m)
        for name, m in model.named_modules()
        if isinstance(m, nn.LSTM | nn.LSTMCell) and _known(m)
    }


def _known(module: nn.Module) -> bool:
    return plain_class(module) in (*ADAPTIVE, *ADAPTIVE.values())


def _other_recurrent(model: nn.Module) -> Iterator[str]:
    """Name and class of the recurrent modules that are never converted: GRUs, quantized and scripted LSTMs."""
    for name, module in model.named_modules():
        kind = str(getattr(module, "original_name", type(module).__name__))  # of a script
        of_torch = type(module).__module__.startswith("torch.") and any(word in kind for word in ("LSTM", "GRU", "RNN"))
        recurrent = of_torch or isinstance(module, nn.RNNBase | nn.RNNCellBase)
        if recurrent and not isinstance(module, nn.LSTM | nn.LSTMCell):
            yield f"{name or 'the model'} ({kind})"
