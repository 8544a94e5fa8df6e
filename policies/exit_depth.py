"""Exits in depth: leave out the layers above once the top layer's state is foreseen from those below.

The same "translate, then trust" as in ``exit_time``. A whole sequence leaves after a layer (layer by layer, so nothing
is stale), or single timesteps do, and the layers above hold their state meanwhile, as in Schuster et al., "Confident
Adaptive Language Modeling" (NeurIPS 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import PolicyError, UnsupportedError
from ..types import StackShape
from .exit_time import check_width
from .head import Head, Measure, can_exit, confidence, resolved
from .translators import DepthTranslators


@dataclass(frozen=True, eq=False, kw_only=True)
class ExitInDepth:
    """Leave the layers above when the head is sure of the translated state.

    At the level of sequences all outputs and ``h_n`` of the top layer are translations; the other layers that did not
    run keep their initial states. At the level of steps the outputs of timesteps that leave are translations, which
    also replace h of the top layer; the layers between hold their state.

    Args:
        translators: from ``fit_translators``; None: nothing leaves (calibration fits them).
        head: as in ``ExitInTime``. None: leave when the translation agrees with that from one layer less.
        threshold: with a head, leave while its confidence is above this; without, while the two translations differ by
            less (root mean square). A number, or one per layer but the top. Default: never.
        measure: confidence as "margin", "max" (probability) or "entropy".
        level: "sequence" (decided on final states; needs the whole sequence) or "step" (decided at every timestep;
            works in streams).

    Raises:
        PolicyError: impossible settings.
    """

    translators: DepthTranslators | None = None
    head: Head | None = None
    threshold: float | tuple[float, ...] | None = None
    measure: Measure = "margin"
    level: Literal["sequence", "step"] = "sequence"

    def __post_init__(self) -> None:
        if not isinstance(self.translators, DepthTranslators | None):
            raise PolicyError(
                f"translators: got {type(self.translators).__name__}, expected the depth part of fit_translators(...)"
            )
        count = len(self.translators.steps) if self.translators else 1
        head, thresholds = resolved(self.head, self.threshold, self.measure, count, "layers below the top")
        if self.level not in ("sequence", "step"):
            raise PolicyError(f"level: got {self.level!r}, expected 'sequence' or 'step'")
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "threshold", thresholds)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of every layer below the top."""
        assert isinstance(self.threshold, tuple)  # resolved in __post_init__
        return self.threshold

    @property
    def active(self) -> bool:
        """Whether anything can leave."""
        return can_exit(self.head, self.thresholds)

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` if maps or head do not fit the stack."""
        layers, width = shape.num_layers, shape.directions * shape.output_size
        if layers < 2:
            raise UnsupportedError("ExitInDepth: the stack has one layer, so there are none above to leave out")
        if self.head is None and layers < 3:
            raise UnsupportedError(
                "ExitInDepth without a head compares the translations of two layers below the top, and the stack has "
                "one; give it the model's head"
            )
        if self.translators is None:
            if self.active:
                raise PolicyError("translators: got None, expected those of fit_translators(...) to leave with")
        elif len(self.translators.steps) != layers - 1:
            raise PolicyError(
                f"translators: got maps for {len(self.translators.steps)} layers, expected {layers - 1} (all below the "
                "top); a policy belongs to the model that it was made for"
            )
        maps_of = zip(self.translators.steps, self.translators.finals, strict=True) if self.translators else ()
        for k, maps in enumerate(maps_of):
            for m in maps:
                if m.weight.shape != (width, (k + 1) * width):
                    raise PolicyError(
                        f"translators: got a map of shape {m.weight.shape} after layer {k}, expected "
                        f"{(width, (k + 1) * width)}; a policy belongs to the model that it was made for"
                    )
        check_width(self.head, width)

    def checks_after(self, shape: StackShape, layer: int) -> bool:
        """Whether ``should_exit`` is asked after this layer; without a head, two translations are needed to compare."""
        if layer >= shape.num_layers - 1 or self.translators is None:
            return False
        return self.thresholds[layer] < 1 if self.head is not None else layer > 0 and self.thresholds[layer] > 0

    def translate(self, layer: int, h: torch.Tensor, final: bool) -> torch.Tensor:
        """The top layer's output [n, D * P] as foreseen from those of layers 0..layer [n, layer + 1, D * P]."""
        assert self.translators is not None  # asks() says no
        return (self.translators.finals if final else self.translators.steps)[layer](h.flatten(1))

    def should_exit(self, layer: int, translation: torch.Tensor, below: torch.Tensor | None) -> torch.Tensor:
        """Whether to leave with this ``translation`` [n, D * P]: bool [n]."""
        if self.head is not None:
            return confidence(self.head, translation, self.measure) > self.thresholds[layer]
        assert below is not None  # asks() says no to the first layer
        return (translation - below).pow(2).mean(1).sqrt() < self.thresholds[layer]
