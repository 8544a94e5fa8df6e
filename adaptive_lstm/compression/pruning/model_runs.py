"""Runs of a model with given weights in its LSTMs: its outputs, and the calls of the LSTMs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...analysis.measure_sensitivity import Output
from ...analysis.recorder import Recorded, Recorder, run_all_on
from ...execution.torch_layer import TorchRunner
from ...model_io import call, picked
from ...runtime.adapt import keep_settings
from ...runtime.lstm import AdaptiveLSTM
from ...runtime.plan import Plan
from ...weights.layout import CellTensors, shape_of, tensors_of

Weights = dict[str, tuple[CellTensors, ...]]


class ModelRuns:
    """Runs a model in eval mode with given weights in its adapted LSTMs; neither is changed."""

    def __init__(self, model: nn.Module, lstms: Mapping[str, AdaptiveLSTM]):
        self.model, self.lstms = model, lstms
        self.shapes = {name: shape_of(lstm) for name, lstm in lstms.items()}

    def outputs(self, weights: Weights, batches: Sequence[Any], output: Output) -> list[torch.Tensor]:
        """The model's output of interest, batch by batch, float64 on the CPU."""
        with torch.no_grad(), run_all_on(self.lstms, torch_runners(self.lstms, weights)):
            return [picked(output, call(self.model, item)).detach().double().cpu() for item in batches]

    def calls(self, weights: Weights | None, batches: Iterable[Any]) -> dict[str, list[Recorded]]:
        """The calls of every LSTM, in float32 on the CPU; weights None: those that the LSTMs hold, on their own route.

        Raises:
            InputError: an LSTM that the inputs do not reach.
            NonFiniteError: an LSTM is given NaN or infinity.
        """
        recorder = Recorder(self.lstms)
        running = self._exactly() if weights is None else run_all_on(self.lstms, torch_runners(self.lstms, weights))
        with torch.no_grad(), running, recorder.recording():
            for item in batches:
                call(self.model, item)
        recorder.check_reached()
        recorder.check_finite()
        return {name: [_on_cpu(made) for made in calls] for name, calls in recorder.calls.items()}

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """Inside the block the LSTMs run their parameters with nothing skipped."""
        with keep_settings(self.lstms.values()):
            for lstm in self.lstms.values():
                lstm.plan = Plan()
            yield


def _on_cpu(made: Recorded) -> Recorded:
    def plain(value: torch.Tensor) -> torch.Tensor:
        return value.cpu().float()

    start = None if made.initial is None else (plain(made.initial[0]), plain(made.initial[1]))
    return Recorded(plain(made.rows), made.sizes, start)


def torch_runners(
    lstms: Mapping[str, AdaptiveLSTM], weights: Mapping[str, tuple[CellTensors, ...]]
) -> dict[str, TorchRunner]:
    """Runners with the given weights in the dtype and on the device of every LSTM."""
    return {
        name: TorchRunner([w.to_device(next(lstm.parameters())) for w in weights[name]], shape_of(lstm))
        for name, lstm in lstms.items()
    }


def originals(lstms: Mapping[str, AdaptiveLSTM]) -> Weights:
    """The parameters of every LSTM, float32 on the CPU."""
    cpu = torch.zeros((), dtype=torch.float32, device="cpu")
    with torch.no_grad():
        return {name: tuple(w.to_device(cpu) for w in tensors_of(lstm)) for name, lstm in lstms.items()}
