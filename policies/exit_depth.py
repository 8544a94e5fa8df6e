"""Exits in depth: skip the layers above once the top layer's state can be predicted from those below.

A whole sequence exits after a layer (layer by layer, so nothing is stale), or single timesteps do, and the layers above
hold their state meanwhile, as in Schuster et al., "Confident Adaptive Language Modeling" (NeurIPS 2022). What both
exits share: ``exits``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..codec import brief, is_one_of, short_repr
from ..errors import PolicyError, UnsupportedError
from ..types import Counts, StackShape
from .exits import Exit, searched_levels, threshold_at
from .head import check_width
from .kind import PolicyKind
from .native_form import NativeDepthExit, NativeHead
from .sweep import FitData, Settings, Sweep
from .translators import DepthTranslators

if TYPE_CHECKING:
    import torch

    from .family import Family

Level = Literal["sequence", "step"]


@short_repr
@dataclass(frozen=True, eq=False, kw_only=True)
class ExitInDepth(Exit):
    """Skip the layers above when the head is confident in the translated state.

    At the level of sequences all outputs and ``h_n`` of the top layer are translations; the other layers that did not
    run keep their initial states. At the level of steps the outputs of timesteps that exit are translations, which
    also replace h of the top layer; the layers between hold their state.

    Args:
        head: as in ``ExitInTime``. None: exit when the translation agrees with that from one layer less.
        threshold: with a head, exit when its confidence exceeds this; without, when the two translations differ by
            less (root mean square). A number, or one per layer but the top. Default: never.
        measure: confidence as "margin", "max" (probability) or "entropy".
        translators: from ``fit_translators``; None: nothing exits (calibration fits them).
        level: "sequence" (decided on final states; needs the whole sequence) or "step" (decided at every timestep;
            works in streams).

    Raises:
        PolicyError: impossible settings.
    """

    translators: DepthTranslators | None = None
    level: Level = "sequence"

    def __post_init__(self) -> None:
        if not isinstance(self.translators, DepthTranslators | None):
            raise PolicyError(
                f"translators: got {type(self.translators).__name__}, expected the depth part of fit_translators(...)"
            )
        count = len(self.translators.steps) if self.translators else 1
        self._resolve(count, "layers below the top")
        if not is_one_of(self.level, ("sequence", "step")):
            raise PolicyError(f"level: got {brief(self.level)}, expected 'sequence' or 'step'")

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` if maps or head do not fit the stack."""
        layers, width = shape.num_layers, shape.directions * shape.output_size
        if layers < 2:
            raise UnsupportedError("ExitInDepth: the stack has one layer, so there are none above to skip")
        if self.head is None and layers < 3:
            raise UnsupportedError(
                "ExitInDepth without a head compares the translations of two layers below the top, and the stack has "
                "one; give it the model's head"
            )
        if self.translators is None:
            if self.active:
                raise PolicyError("translators: got None, expected those of fit_translators(...) to exit with")
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
        """Whether there is a check after this layer; without a head, two translations are needed to compare."""
        if layer >= shape.num_layers - 1 or self.translators is None:
            return False
        return self.thresholds[layer] < 1 if self.head is not None else layer > 0 and self.thresholds[layer] > 0

    def translate(self, layer: int, h: torch.Tensor, final: bool) -> torch.Tensor:
        """The predicted output of the top layer [n, D * P] from those of layers 0..layer [n, layer + 1, D * P]."""
        assert self.translators is not None  # checks_after says no
        return (self.translators.finals if final else self.translators.steps)[layer](h.flatten(1))

    def should_exit(self, layer: int, translation: torch.Tensor, below: torch.Tensor | None) -> torch.Tensor:
        """Whether to exit with this ``translation`` [n, D * P]: bool [n]; ``below`` is read without a head."""
        return self.passes(layer, translation, below)


def _sweeps(family: Family, fit: FitData) -> Iterator[Sweep]:
    (name,) = fit.shapes
    fitted = fit.translators[name].depth if name in fit.translators else None
    if fitted is None:
        return
    levels: tuple[Level, ...] = ("sequence", "step")
    for level in levels:

        def make(strength: float, level: Level = level) -> Settings:
            return {name: family.make(translators=fitted, threshold=threshold_at(family, strength), level=level)}

        yield Sweep(f"depth of {level}s", f"exit in depth({level})", searched_levels(family), make)


def _native(policy: ExitInDepth, shape: StackShape) -> NativeDepthExit | None:
    if policy.holds_code:
        return None
    maps, head, whole = policy.translators, policy.native_head, policy.level == "sequence"
    steps, finals = (maps.steps, maps.finals) if maps else ((), ())
    return NativeDepthExit(
        whole_sequences=whole,
        head=NativeHead.of(head, policy.measure),
        checks=tuple(policy.checks_after(shape, layer) for layer in range(shape.num_layers - 1)),
        thresholds=policy.thresholds,
        steps=steps,
        finals=finals,
        logits=() if head is None else tuple(head.after(m) for m in (finals if whole else steps)),
    )


def _macs(policy: ExitInDepth, shape: StackShape, counts: Counts) -> int:
    """With a linear head a check is one map to logits, the translator folded in; else one or two translations.

    A timestep exits with the translation that was checked; the outputs of a sequence have maps of their own.
    """
    width, head, macs = shape.directions * shape.output_size, policy.native_head, 0
    for layer, (checks, exits) in enumerate(zip(counts.depth_checks, counts.depth_exits, strict=True)):
        known = (layer + 1) * width
        if head is not None:
            macs += checks * len(head.weight) * known
        else:
            macs += checks * width * (known if policy.head is not None else known + layer * width)
        if head is not None or policy.level == "sequence":
            macs += exits * width * known
    return macs


ExitInDepth.kind = PolicyKind(
    name="ExitInDepth",
    decision="depth_exit",
    searched=("threshold", "translators", "level"),
    sweeps=_sweeps,
    needs=frozenset({"translators"}),
    native=_native,
    macs=_macs,
)
