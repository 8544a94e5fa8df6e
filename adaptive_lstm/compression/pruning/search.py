"""``"auto"``: a search of scores, damping, ridge and compensation, from coarse to fine, on held-out data.

No score is best everywhere, and a layer-wise optimum can destabilise the recurrence, so candidates are compared by the
model's own output: sum ||y - y_dense||^2 / sum ||y_dense - mean||^2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...progress import Progress
from .candidate import CandidateBuilder
from .masks import Recipe
from .settings import Prune

GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
FIRST_RIDGE = 0.1  # of the first candidates
RIDGES = (1.0, 0.3, 0.1, 0.03, 0.01)
REFITS = 10  # recipes that refit, beside those that choose the score: sweeps, ridges, OBS
SWEEPS = 3  # of a refit from the bottom up; sweeps after the first use the layer's own pruned h
CLOSED_RIDGE = 0.3  # with sweeps: the errors of the closed loop are not independent, so it needs more ridge
MIN_IMPROVEMENT = 0.97  # times the best error: a later candidate must be below; less is noise of the held-out set


def relative_error(found: Sequence[torch.Tensor], dense: Sequence[torch.Tensor]) -> float:
    """Squared distance of outputs from the dense ones, relative to their variance; infinite where not finite.

    The mean is taken over all but the last dimension, or over everything where that is no feature: where it varies.
    """
    off = sum(float((a - b).pow(2).sum()) for a, b in zip(found, dense, strict=True))
    widths = {b.shape[-1] if b.dim() else 1 for b in dense}
    width = widths.pop() if len(widths) == 1 else 1
    rows = torch.cat([b.reshape(-1, width) for b in dense])
    spread = float((rows - rows.mean(0)).pow(2).sum()) or float(rows.pow(2).sum()) or 1.0
    return off / spread if off == off else float("inf")


def choose(builder: CandidateBuilder, prune: Prune, held: Sequence[Any], progress: bool) -> Recipe:
    """The recipe with the smallest error on the held-out batches, of those that the settings allow."""
    dense = builder.outputs(builder.originals, held)
    errors: dict[Recipe, float] = {}
    kept: tuple[float, Recipe] | None = None
    bar = Progress("pruning", "candidate", show=progress, total=_at_most(prune))

    def best(recipes: Iterable[Recipe]) -> Recipe:
        nonlocal kept
        for recipe in recipes:
            if recipe in errors:
                continue
            error = errors[recipe] = relative_error(builder.outputs(builder.weights(recipe), held), dense)
            # A diagonal score only prepares the search for OBS where that is the setting.
            if prune.saliency in ("auto", recipe.saliency) and (kept is None or error < MIN_IMPROVEMENT * kept[0]):
                kept = (error, recipe)
            bar.note(f"error {min(errors.values()):.4f}")
            bar.advance()
        return min(errors, key=errors.__getitem__) if kept is None else kept[1]

    with bar:
        found = best(_scores(prune))
        # Errors have one minimum in gamma, and within a row, where N:M compares, it changes nothing.
        if prune.gamma is None and prune.n_of_m is None and found.saliency == "second-order":
            nearest = found
            while (found := best(_neighbours(nearest))) != nearest:
                nearest = found
        for stage in (_compensations, _closed, _ridges, _ridges, _finer):
            found = best(stage(prune, found))
    assert kept is not None, "no candidate"
    return kept[1]


def _at_most(prune: Prune) -> int:
    """About how many recipes ``choose`` tries at the most."""
    dampings = len(GAMMAS) - 1 if prune.gamma is None and prune.n_of_m is None else 0
    return sum(1 for _ in _scores(prune)) + dampings + (REFITS if prune.compensate in ("auto", "refit") else 0)


def _scores(prune: Prune) -> Iterator[Recipe]:
    compensate = "refit" if prune.compensate == "auto" else prune.compensate
    start = Recipe("second-order", 0.5, compensate, FIRST_RIDGE if prune.ridge is None else prune.ridge, 0)
    if prune.saliency in ("auto", "second-order", "obs"):
        # The best damping of the diagonal score is that of OBS too, which takes ten times as long.
        yield start if prune.gamma is None else replace(start, gamma=prune.gamma)
    if prune.saliency in ("auto", "magnitude"):
        yield replace(start, saliency="magnitude", gamma=0.0)
    if prune.saliency in ("auto", "taylor"):
        yield replace(start, saliency="taylor", gamma=0.0)
    if prune.saliency == "activation":
        yield replace(start, saliency="activation", gamma=0.0)


def _neighbours(found: Recipe) -> Iterator[Recipe]:
    if found.gamma in GAMMAS and found.saliency == "second-order":
        place = GAMMAS.index(found.gamma)
        yield from (replace(found, gamma=gamma) for gamma in GAMMAS[max(place - 1, 0) : place + 2])


def _compensations(prune: Prune, found: Recipe) -> Iterator[Recipe]:
    if prune.compensate == "auto" and prune.saliency != "obs" and prune.pattern != "layer":
        yield from (replace(found, compensate=name) for name in ("mean", "none"))


def _closed(prune: Prune, found: Recipe) -> Iterator[Recipe]:
    """Refits from the bottom up on the outputs of pruned layers, the stronger ridge first."""
    if found.compensate != "refit":
        return
    for ridge in (CLOSED_RIDGE, FIRST_RIDGE) if prune.ridge is None else (prune.ridge,):
        yield replace(found, ridge=ridge, sweeps=SWEEPS)
        # Without sweeps, close scores are hard to tell apart.
        if prune.saliency == "auto" and found.saliency != "second-order":
            yield Recipe("second-order", _damping(prune, found), "refit", ridge, SWEEPS)


def _damping(prune: Prune, found: Recipe) -> float:
    """The damping of a second-order score that follows ``found``."""
    if found.saliency == "second-order":
        return found.gamma
    return 0.5 if prune.gamma is None else prune.gamma


def _ridges(prune: Prune, found: Recipe) -> Iterator[Recipe]:
    """The next weaker and the next stronger ridge."""
    if prune.ridge is None and found.compensate == "refit":
        place = RIDGES.index(found.ridge)
        yield from (replace(found, ridge=ridge) for ridge in RIDGES[max(place - 1, 0) : place + 2])


def _finer(prune: Prune, found: Recipe) -> Iterator[Recipe]:
    single = prune.pattern == "unstructured" or prune.n_of_m is not None
    if found.compensate == "refit" and single and prune.saliency in ("auto", "obs"):
        gamma = _damping(prune, found)
        yield replace(found, saliency="obs", gamma=gamma)
        if prune.saliency == "obs":  # OBS may be worse with sweeps even if the diagonal was better
            yield replace(found, saliency="obs", gamma=gamma, sweeps=0)
