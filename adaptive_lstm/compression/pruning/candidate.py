"""Pruned weights for a recipe, from a model and the recorded calls of its LSTMs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...analysis.measure_sensitivity import Output
from ...analysis.sensitivity import Sensitivity
from ...errors import InputError
from ...runtime.lstm import AdaptiveLSTM
from ...types import DoubleArray, StackShape
from .masks import CellData, Recipe, scores, weight_masks
from .model_runs import ModelRuns, Weights, originals
from .refit import Mask
from .settings import Prune
from .stack import DenseRun, dense_moments, dense_run, prune_stack
from .units import live_units, unit_masks


class CandidateBuilder:
    """Builds and runs candidates; holds everything that does not depend on the recipe.

    Args:
        model: an adapted model in eval mode.
        lstms: its LSTMs.
        prune: the settings.
        fit: batches that weights are fitted on.
        sensitivities: of the LSTMs, measured with their original weights.
        gradients: mean squared gradients by LSTM and cell, for the Taylor score, or None.
        output: picks the output of interest.
        tick: called before every piece of work that takes a while.

    Raises:
        InputError: an LSTM that the inputs do not reach.
        NonFiniteError: an LSTM is given NaN or infinity.
    """

    def __init__(
        self,
        model: nn.Module,
        lstms: Mapping[str, AdaptiveLSTM],
        prune: Prune,
        fit: Sequence[Any],
        sensitivities: Mapping[str, Sensitivity],
        gradients: Mapping[str, Sequence[DoubleArray]] | None,
        output: Output,
        tick: Callable[[], object] = lambda: None,
    ):
        self.lstms, self.prune, self.fit, self.output, self.tick = lstms, prune, fit, output, tick
        self.sensitivities = sensitivities
        self.runs = ModelRuns(model, lstms)
        self.shapes: dict[str, StackShape] = self.runs.shapes
        self.originals: Weights = originals(lstms)
        self.dense = self._dense_runs(None)
        self.cells = {
            name: [
                self._data(name, cell, sensitivities[name], None if gradients is None else gradients[name][cell])
                for cell in range(shape.num_cells)
            ]
            for name, shape in self.shapes.items()
        }

    def weights(self, recipe: Recipe, prune: Prune | None = None) -> Weights:
        """The pruned weights of every LSTM; prune: other settings than the builder's."""
        prune = prune or self.prune
        names, flat = list(self.lstms), [data for cells in self.cells.values() for data in cells]
        live: dict[str, list[Mask]] = {}
        mapped: dict[str, list[int]] = {}
        if prune.pattern == "unit":
            masks = live_units(prune, recipe, list(self.shapes.values()), list(self.cells.values()))
            live = dict(zip(names, masks, strict=True))
            keep = {name: unit_masks(self.shapes[name], live[name], self.cells[name]) for name in names}
        elif prune.pattern == "layer":
            mapped = {name: self._mapped(name, recipe, prune) for name in names}
            keep = {name: [np.ones(d.w.shape, dtype=bool) for d in self.cells[name]] for name in names}
        else:
            rest = iter(weight_masks(prune, recipe, flat))
            keep = {name: [next(rest) for _ in self.cells[name]] for name in names}
        out = dict(self.originals)
        for index, name in enumerate(names):
            dense, cells = self.dense[name], self.cells[name]
            if recipe.sweeps and index:  # its inputs depend on the LSTMs before it
                dense = self._dense_runs(out)[name]
                cells = [replace(data, moments=dense_moments(dense, cell)) for cell, data in enumerate(cells)]
            out[name] = prune_stack(recipe, dense, cells, keep[name], live.get(name), mapped.get(name, ()), self.tick)
        return out

    def outputs(self, weights: Weights, batches: Sequence[Any]) -> list[torch.Tensor]:
        """The model's output of interest, batch by batch, with other weights in its LSTMs."""
        return self.runs.outputs(weights, batches, self.output)

    def _dense_runs(self, weights: Weights | None) -> dict[str, DenseRun]:
        """Dense runs of the LSTMs on the inputs that reach them with these weights in the LSTMs of the model.

        weights: None: their parameters.
        """
        found = self.runs.calls(weights, self._ticking(self.fit))
        return {
            name: dense_run(self.shapes[name], self.originals[name], calls, self.tick) for name, calls in found.items()
        }

    def _ticking(self, items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            self.tick()
            yield item

    def _data(self, name: str, cell: int, sensitivity: Sensitivity, squares: DoubleArray | None) -> CellData:
        self.tick()
        weights, shape = self.originals[name][cell], self.shapes[name]
        width = shape.input_width(cell)
        prunable = np.ones(width + shape.output_size, dtype=bool)
        if cell < shape.directions and not self.prune.raw:
            prunable[:width] = False
        return CellData(
            w=torch.cat([weights.w_ih, weights.w_hh], dim=1).double().numpy(),
            bias=weights.bias.double().numpy(),
            width=width,
            prunable=prunable,
            moments=dense_moments(self.dense[name], cell),
            rows=sensitivity.rows[cell],
            squares=squares,
        )

    def _mapped(self, name: str, recipe: Recipe, prune: Prune) -> list[int]:
        """The layers with the lowest scores; one always stays."""
        shape = self.shapes[name]
        if shape.proj_size:
            raise InputError(
                f"pattern: got 'layer' for the LSTM {name!r} with proj_size, which hides the outputs of its units; "
                "expected an LSTM without projection"
            )
        if shape.num_layers == 1:
            raise InputError(f"pattern: got 'layer' for the LSTM {name!r}, which has one layer; expected at least two")
        found = [float(scores(recipe, data).sum()) for data in self.cells[name]]
        by_layer = np.array(found).reshape(shape.num_layers, -1).sum(axis=1)
        count = min(round(prune.share * shape.num_layers), shape.num_layers - 1)
        return [int(layer) for layer in np.argsort(by_layer, kind="stable")[:count]]
