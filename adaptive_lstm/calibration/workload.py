"""The work that is timed: calls of a model, its LSTMs frame by frame, or its LSTMs with several sequences at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from ..codec import brief, is_one_of
from ..errors import InputError
from ..model_io import call
from ..runtime.adapt import adapted_lstms
from ..runtime.call import Call
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.sequence_batches import packed
from ..runtime.stream import stream

Use = Literal["sequence", "stream", "batch"]
"""How a model is used: "sequence": called with one input at a time; "stream": its LSTMs advance frame by frame;
"batch": its LSTMs take the sequences of all inputs in one call."""

USES: tuple[str, ...] = get_args(Use)

Rows = Mapping[str, Sequence[torch.Tensor]]
"""By module name of an LSTM, the sequences [T, I] that its calls were given."""

Run = Callable[[], None]


def workload(model: nn.Module, inputs: Sequence[Any], use: Use) -> Callable[[nn.Module], Run]:
    """What is timed of a model and of copies of it with other policies: call the result with one of them.

    Args:
        model: adapted, in eval mode. For "stream" and "batch" it runs once, to see what its LSTMs are given.
        inputs: of the model, as ``calibrate`` takes them.
        use: how the model will be used.

    Raises:
        InputError: no inputs, an unknown use, or a stream of a bidirectional LSTM.
    """
    check_use(use, adapted_lstms(model))
    if not inputs:
        raise InputError("inputs: got none, expected at least one to time")
    if use == "sequence":
        return lambda one: _calls(one, inputs)
    rows = _recorded(model, inputs)
    timed = _steps if use == "stream" else _batches
    return lambda one: timed(adapted_lstms(one), rows)


def check_use(use: object, lstms: Mapping[str, AdaptiveLSTM]) -> None:
    """Raise ``InputError`` unless these LSTMs can be used that way."""
    if not is_one_of(use, USES):
        raise InputError(f"use: got {brief(use)}, expected one of {', '.join(map(repr, USES))}")
    backward = [name for name, lstm in lstms.items() if lstm.bidirectional]
    if use == "stream" and backward:
        raise InputError(f"use='stream': {', '.join(backward)} is bidirectional and cannot stream; say use='sequence'")


def _calls(model: nn.Module, inputs: Sequence[Any]) -> Run:
    def run() -> None:
        with torch.no_grad():
            for item in inputs:
                call(model, item)

    return run


def _steps(lstms: Mapping[str, AdaptiveLSTM], rows: Rows) -> Run:
    frames = [(stream(lstms[name]), [list(row[:, None]) for row in found]) for name, found in rows.items()]

    def run() -> None:
        for opened, sequences in frames:
            for sequence in sequences:
                opened.reset()
                for x in sequence:
                    opened.step(x)

    return run


def _batches(lstms: Mapping[str, AdaptiveLSTM], rows: Rows) -> Run:
    batches = [(lstms[name], packed(found)) for name, found in rows.items()]

    def run() -> None:
        with torch.no_grad():
            for lstm, x in batches:
                lstm(x)

    return run


def _recorded(model: nn.Module, inputs: Sequence[Any]) -> Rows:
    """What the LSTMs of a model are given."""
    rows: dict[str, list[torch.Tensor]] = {}
    with ExitStack() as watched:
        for name, lstm in adapted_lstms(model).items():
            watched.enter_context(lstm.watched_by(_appending(rows.setdefault(name, []), lstm.batch_first)))
        _calls(model, inputs)()
    found = {name: some for name, some in rows.items() if some}
    if not found:
        raise InputError("the model calls none of its LSTMs")
    return found


def _appending(rows: list[torch.Tensor], batch_first: bool) -> Callable[[Call], None]:
    def append(made: Call) -> None:
        x = made.input
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x, batch_first=True)
            rows.extend(row[:n].clone() for row, n in zip(padded, lengths.tolist(), strict=True))
        elif x.dim() == 2:
            rows.append(x.clone())
        else:
            rows.extend(row.clone() for row in (x if batch_first else x.transpose(0, 1)))

    return append
