"""Ranges of the inputs of LSTMs: the largest magnitude of every column over the inputs of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from ..model_io import as_batches, call
from ..runtime.adapt import adapted_lstms
from ..types import FloatArray
from .recorder import Recorder


def input_ranges(model: nn.Module, inputs: Iterable[Any], names: Collection[str]) -> dict[str, FloatArray]:
    """Largest ``|x_j|`` that each named LSTM of a model is given over all inputs, by name: [I].

    Args:
        model: in eval mode.
        inputs: batches, each as the model takes it: a tensor, a ``PackedSequence``, a tuple of arguments, or a dict
            of arguments by name. One tensor or dict alone is one batch.
        names: of adapted LSTMs.

    Raises:
        InputError: training mode, no inputs, or an LSTM that the model does not call.
        NonFiniteError: an LSTM is given NaN or infinity.
    """
    recorder = Recorder({name: lstm for name, lstm in adapted_lstms(model).items() if name in names})
    largest: dict[str, FloatArray] = {}
    with recorder.recording(), torch.no_grad():
        for item in as_batches(inputs):
            call(model, item)
            recorder.check_finite()
            for name in recorder.lstms:
                for made in recorder.taken(name):
                    now = made.rows.abs().amax(dim=0).to("cpu", torch.float32).numpy()
                    largest[name] = np.maximum(now, largest.get(name, 0.0))
    recorder.check_reached()
    return largest
