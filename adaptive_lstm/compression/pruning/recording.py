"""Runs of a model with weights of one's choice in its LSTMs, and what these are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...analysis.measure_sensitivity import Output
from ...analysis.recorder import standing_in
from ...errors import InputError, NonFiniteError
from ...model_io import call
from ...runtime.lstm import AdaptiveLSTM
from ...weights.layout import CellTensors, shape_of, tensors_of
from .layers import Call, Stack

Weights = dict[str, tuple[CellTensors, ...]]


class Recorder:
    """A model in eval mode and its adapted LSTMs by name; nothing of them is changed."""

    def __init__(self, model: nn.Module, lstms: Mapping[str, AdaptiveLSTM]):
        self.model, self.lstms = model, lstms
        self.shapes = {name: shape_of(lstm) for name, lstm in lstms.items()}

    def outputs(self, weights: Weights, batches: Sequence[Any], output: Output) -> list[torch.Tensor]:
        """The model's output that counts, batch by batch, float64 on the CPU."""
        with torch.no_grad(), standing_in(self.lstms, self._stacks(weights, record=False)):
            return [output(call(self.model, item)).detach().double().cpu() for item in batches]

    def calls(self, weights: Weights, batches: Sequence[Any]) -> dict[str, list[Call]]:
        """What every LSTM is given.

        Raises:
            InputError: an LSTM that the inputs do not reach.
            NonFiniteError: an LSTM is given NaN or infinity.
        """
        stacks = self._stacks(weights, record=True)
        with torch.no_grad(), standing_in(self.lstms, stacks):
            for item in batches:
                call(self.model, item)
        for name, stack in stacks.items():
            if not stack.calls:
                raise InputError(
                    f"inputs: the model did not call its LSTM {name!r}, expected inputs that reach every LSTM"
                )
            if not all(bool(torch.isfinite(c.rows).all()) for c in stack.calls):
                raise NonFiniteError(f"the LSTM {name!r} is given NaN or infinity; clean the inputs")
        return {name: stack.calls for name, stack in stacks.items()}

    def _stacks(self, weights: Weights, *, record: bool) -> dict[str, Stack]:
        def like(name: str) -> torch.Tensor:
            return next(self.lstms[name].parameters())

        return {
            name: Stack([w.to_device(like(name)) for w in weights[name]], self.shapes[name], record=record)
            for name in self.lstms
        }


def originals(lstms: Mapping[str, AdaptiveLSTM]) -> Weights:
    """The parameters of every LSTM, float32 on the CPU."""
    cpu = torch.zeros(())
    with torch.no_grad():
        return {name: tuple(w.to_device(cpu) for w in tensors_of(lstm)) for name, lstm in lstms.items()}
