"""``prune_model``: pruned weights from a model, inputs and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from ...analysis.measure_sensitivity import Output, measure_sensitivities
from ...analysis.sensitivity import Sensitivity
from ...errors import InputError
from ...model_io import as_batches, first_tensor
from ...runtime.adapt import adapted_lstms, keep_settings
from ...runtime.lstm import AdaptiveLSTM
from ...weights.fingerprint import weights_digest
from ...weights.layout import shape_of
from ...weights.replaced import ReplacedWeights
from .candidate import CandidateBuilder
from .gradients import squared_gradients
from .model_runs import originals
from .search import choose
from .settings import Prune

Item = TypeVar("Item")

HELD_OUT = 4  # every fourth item is held out


def prune_model(
    model: nn.Module,
    inputs: Iterable[Any],
    prune: Prune,
    *,
    sensitivities: Mapping[str, Sensitivity] | None = None,
    output: Output = first_tensor,
    progress: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, ReplacedWeights]:
    """Pruned weights for every LSTM of a model, by module name, always from its parameters; the model is not changed.

    Candidates are fitted on three of four batches and compared on every fourth (at least one); the chosen one is then
    fitted on all of them. A single batch is split along its first dimension (along its batch if the model itself is an
    LSTM) if it is one tensor; otherwise candidates are fitted and compared on the same batch, and may overfit. All
    states of the dense run are kept in memory: 4 * (I + L * D * P) bytes per timestep.

    Args:
        model: an adapted model in eval mode, or one ``AdaptiveLSTM``.
        inputs: batches, each as the model takes it: a tensor, a ``PackedSequence``, a tuple of arguments, or a dict
            of arguments by name. One tensor or dict alone is one batch. A few hundred sequences in batches of 16 to 64
            are plenty.
        prune: what to remove.
        sensitivities: by module name, measured with the present parameters; None: measured on the fitting part.
        output: picks the tensor to compare from what the model returns; default: the first one.
        progress: show bars.
        tick: called before every piece of work that takes a while; what it raises ends the call.

    Raises:
        InputError: no adapted LSTM, no inputs, training mode, sensitivities that do not belong to the model, or a
            pattern that does not apply to an LSTM.
        NonFiniteError: an LSTM is given NaN or infinity by the inputs.
    """
    lstms = adapted_lstms(model)
    if not isinstance(prune, Prune):
        raise InputError(f"prune: got {type(prune).__name__}, expected adaptive_lstm.Prune, for example Prune()")
    batches = list(as_batches(inputs))
    if not batches:
        raise InputError("inputs: got no batches (an iterator that was used up?), expected at least one")
    fit, held = fit_and_held_out(batches, 1 if isinstance(model, AdaptiveLSTM) and not model.batch_first else 0)
    with keep_settings(lstms.values()):
        for lstm in lstms.values():
            lstm.replaced = None
        if sensitivities is None:
            sensitivities = measure_sensitivities(model, fit, output=output, progress=progress)
        _check(sensitivities, lstms)
        gradients = None
        if prune.saliency in ("auto", "taylor"):
            gradients = squared_gradients(model, lstms, originals(lstms), fit, output, progress)
        builder = CandidateBuilder(model, lstms, prune, fit, sensitivities, gradients, output, tick)
        recipe = choose(builder, prune, held, progress)
        if fit[0] is not held[0]:  # otherwise a single batch that cannot be split, already fitted on
            builder = CandidateBuilder(model, lstms, prune, batches, sensitivities, gradients, output, tick)
        weights = builder.weights(recipe)
        return {name: ReplacedWeights(weights[name], weights_digest(lstm)) for name, lstm in lstms.items()}


def hold_out(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Items to fit on, and held-out items: the last and every fourth before it, so that sorted items are covered."""
    held = range(len(items) - 1, -1, -HELD_OUT)
    return [item for i, item in enumerate(items) if i not in held], [items[i] for i in held]


def fit_and_held_out(batches: Sequence[Any], dim: int) -> tuple[list[Any], list[Any]]:
    """Batches to fit on and held-out batches; a single tensor is split along ``dim``."""
    if len(batches) == 1:
        only = batches[0]
        if not (isinstance(only, torch.Tensor) and only.dim() == 3 and only.shape[dim] > 1):
            return [only], [only]
        count = max(1, only.shape[dim] // HELD_OUT)
        first, last = only.split([only.shape[dim] - count, count], dim)
        return [first], [last]
    return hold_out(batches)


def _check(sensitivities: Mapping[str, Sensitivity], lstms: Mapping[str, AdaptiveLSTM]) -> None:
    for name, weights in originals(lstms).items():
        found = sensitivities.get(name)
        if found is None:
            raise InputError(f"sensitivities: got those of {sorted(sensitivities)}, expected {name!r} too")
        same = found.shape == shape_of(lstms[name]) and all(
            torch.equal(torch.from_numpy(w[0]), o.w_ih) and torch.equal(torch.from_numpy(w[1]), o.w_hh)
            for w, o in zip(found.weights, weights, strict=True)
        )
        if not same:
            raise InputError(f"sensitivities: those of {name!r} were measured with other weights; measure them again")
