"""Exits in time: skip the rest of a sequence once its final state can be predicted.

Early exit by confidence with patience: Zhou et al., "BERT Loses Patience" (NeurIPS 2020); in time: "Early Time
Classification with Accumulated Accuracy Gap Control" (Ringel et al., ICML 2024). What both exits share: ``exits``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codec import brief, is_whole, plain_numbers, short_repr
from ..errors import PolicyError, UnsupportedError
from ..types import Counts, StackShape
from .counts import LONGEST, MOST_KEPT, check_count
from .exits import Exit, never, searched_levels, threshold_at
from .head import check_width
from .kind import PolicyKind
from .native_form import NativeHead, NativeTimeExit
from .sweep import FitData, Settings, Sweep
from .translators import TimeTranslators, bucket, check_buckets

if TYPE_CHECKING:
    import torch

    from .family import Family


@short_repr
@dataclass(frozen=True, eq=False, kw_only=True)
class ExitInTime(Exit):
    """Exit a sequence when the head is confident in the translated state, or when the translation has settled.

    From the timestep at which a row exits, its outputs and ``h_n`` of the top layer are the translated state; ``h_n``
    of the layers below and ``c_n`` are those of that timestep. Rows of a batch exit one by one; the others go on
    without them. It suits models that read the final state or the last output. A model that reads every output loses
    more; calibration measures how much.

    Args:
        head: the model's head on the top layer's state (see ``as_head``). A linear one runs natively; any other
            callable runs between native chunks, or on the reference executor. None: exit when the translation has
            settled.
        threshold: with a head, exit when its confidence exceeds this; without, when the translation has changed by
            less (root mean square, h in -1..1) since ``window`` checks ago. A number, or one per time bucket.
            Default: never.
        measure: confidence as "margin", "max" (probability) or "entropy".
        translators: from ``fit_translators``; None: the top layer's state as it is.
        starts: first timestep of each bucket of ``threshold``; default: those of the translators, or one bucket.
        check_every: timesteps between two checks, up to 2**30.
        patience: consecutive checks that must pass, up to 2**30.
        window: without a head, how many checks to look back, up to 4,096.

    Raises:
        PolicyError: impossible settings, or one threshold per bucket and another number of buckets.
    """

    translators: TimeTranslators | None = None
    starts: tuple[int, ...] | None = None
    check_every: int = 4
    patience: int = 1
    window: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.translators, TimeTranslators | None):
            raise PolicyError(
                f"translators: got {type(self.translators).__name__}, expected the time part of fit_translators(...)"
            )
        plain_numbers(self, "check_every", "patience", "window")
        given: Any = self.starts
        if given is None:
            given = self.translators.starts if self.translators else (0,)
        if not (isinstance(given, tuple | list | np.ndarray) and len(given) and all(is_whole(s) for s in given)):
            raise PolicyError(
                f"starts: got {brief(given)}, expected whole numbers, the first timestep of every bucket of threshold"
            )
        starts = tuple(int(s) for s in given)
        check_buckets(starts)
        self._resolve(len(starts), "time buckets")
        check_count(self.check_every, "check_every", LONGEST)
        check_count(self.patience, "patience", LONGEST)
        if self.head is None:
            check_count(self.window, "window", MOST_KEPT)
        object.__setattr__(self, "starts", starts)
        if self.head is not None:
            object.__setattr__(self, "window", 0)

    def check(self, shape: StackShape) -> None:
        """Raise ``UnsupportedError`` for a bidirectional stack, ``PolicyError`` if maps or head do not fit."""
        if shape.bidirectional:
            raise UnsupportedError(
                "ExitInTime on a bidirectional LSTM: its backward direction starts at the end of the sequence, so "
                "there is no rest to skip; ExitInDepth and SkipTimesteps work there"
            )
        width, top = shape.num_layers * shape.output_size, shape.output_size
        for m in self.translators.maps if self.translators else ():
            if m.weight.shape != (top, width):
                raise PolicyError(
                    f"translators: got a map of shape {m.weight.shape}, expected {(top, width)} (states of all layers "
                    "to the top one); a policy belongs to the model that it was made for"
                )
        check_width(self.head, top)

    def translate(self, time: int, h: torch.Tensor) -> torch.Tensor:
        """The predicted final state of the top layer [B, P] after timestep ``time``, from h of all layers [B, L, P]."""
        if self.translators is None:
            return h[:, -1]
        return self.translators.maps[bucket(self.translators.starts, time)](h.flatten(1))

    def should_exit(self, time: int, translation: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """Whether to exit with this ``translation`` [B, P]: bool [B]; past [B, window, P] is read without a head."""
        assert self.starts is not None  # settled in __post_init__
        return self.passes(bucket(self.starts, time), translation, None if self.head is not None else past[:, 0])


def _sweeps(family: Family, fit: FitData) -> Iterator[Sweep]:
    (name,) = fit.shapes
    fitted = fit.translators[name].time if name in fit.translators else None
    options: list[tuple[str, TimeTranslators | None]] = [("as it is", None)]
    if fitted is not None:
        options.append(("translated", fitted))
    starts = fitted.starts if fitted is not None else (0,)
    closed = never(family.settings.get("head"))
    for text, translators in options:
        for first in range(len(starts)):

            def make(level: float, translators: TimeTranslators | None = translators, first: int = first) -> Settings:
                threshold = threshold_at(family, level)
                per_bucket = tuple(threshold if b >= first else closed for b in range(len(starts)))
                return {name: family.make(threshold=per_bucket, translators=translators, starts=starts)}

            later = f", from step {starts[first]}" if first else ""
            yield Sweep("time", f"exit in time({text}{later})", searched_levels(family), make, first, starts)


def _native(policy: ExitInTime, shape: StackShape) -> NativeTimeExit | None:
    if policy.holds_code:
        return None
    head, translators = policy.native_head, policy.translators
    maps = translators.maps if translators else ()
    folded = () if head is None else tuple(head.after(m) for m in maps) if translators else (head,)
    return NativeTimeExit(
        check_every=policy.check_every,
        patience=policy.patience,
        window=policy.window,
        head=NativeHead.of(head, policy.measure),
        starts=policy.starts or (0,),
        thresholds=policy.thresholds,
        map_starts=translators.starts if translators else (0,),
        maps=maps,
        logits=folded,
    )


def _macs(policy: ExitInTime, shape: StackShape, counts: Counts) -> int:
    """With a linear head a check is one map to logits, the translator folded in; else it is the translation.

    Of a head in Python only the translations are known.
    """
    width, translated = shape.directions * shape.output_size, policy.translators is not None
    known = shape.num_layers * width if translated else width
    translation = width * known if translated else 0
    if policy.native_head is None:
        return counts.exit_checks * translation
    return counts.exit_checks * len(policy.native_head.weight) * known + counts.exits * translation


ExitInTime.kind = PolicyKind(
    name="ExitInTime",
    decision="time_exit",
    searched=("threshold", "translators", "starts"),
    sweeps=_sweeps,
    needs=frozenset({"translators"}),
    native=_native,
    macs=_macs,
)
