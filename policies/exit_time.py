"""Exits in time: leave out the rest of a sequence once the answer is foreseen.

Translate, then trust: the states of all layers are mapped to the final state of the top layer, and the model's own
head says how sure it is of *that*. Early exit by confidence with patience: Zhou et al., "BERT Loses Patience" (NeurIPS
2020); in time: "Early Time Classification with Accumulated Accuracy Gap Control" (Ringel et al., ICML 2024).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch

from ..errors import PolicyError, UnsupportedError
from ..types import StackShape
from .counts import LONGEST, MOST_KEPT, check_count
from .head import Head, LinearHead, Measure, can_exit, confidence, resolved
from .translators import TimeTranslators, bucket, check_buckets


@dataclass(frozen=True, eq=False)
class ExitInTime:
    """Leave a sequence when the head is sure of the translated state, or when the translation has settled.

    From the timestep at which a row leaves, its outputs and ``h_n`` of the top layer are the translated state; ``h_n``
    of the layers below and ``c_n`` are those of that timestep. Rows of a batch leave one by one, the rest goes on
    without them. So it suits models that read the final state or the last output; one that reads every output feels
    it, and calibration says how much.

    Args:
        head: the model's head on the top layer's state (see ``as_head``). A linear one runs natively; any other
            callable runs between native chunks, or on the reference executor. None: leave when the translation has
            settled.
        threshold: with a head, leave while its confidence is above this; without, while the translation has moved by
            less (root mean square, h lies in -1..1) since ``window`` questions ago. A number, or one per time bucket.
            Default: never.
        measure: confidence as "margin", "max" (probability) or "entropy".
        translators: from ``fit_translators``; None: the top layer's state as it is.
        starts: first timestep of each bucket of ``threshold``; default: those of the translators, or one bucket.
        check_every: timesteps between two questions, up to 2**30.
        patience: questions in a row that must be answered with yes, up to 2**30.
        window: without a head, how many questions to look back, up to 4,096.

    Raises:
        PolicyError: impossible settings, or one threshold per bucket and another number of buckets.
    """

    head: Head | None = None
    _: KW_ONLY
    threshold: float | tuple[float, ...] | None = None
    measure: Measure = "margin"
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
        starts = self.starts or (self.translators.starts if self.translators else (0,))
        starts = tuple(int(s) for s in starts)
        check_buckets(starts)
        head, thresholds = resolved(self.head, self.threshold, self.measure, len(starts), "time buckets")
        check_count(self.check_every, "check_every", LONGEST)
        check_count(self.patience, "patience", LONGEST)
        if self.head is None:
            check_count(self.window, "window", MOST_KEPT)
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "threshold", thresholds)
        object.__setattr__(self, "starts", starts)
        if self.head is not None:
            object.__setattr__(self, "window", 0)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of every time bucket of ``starts``."""
        assert isinstance(self.threshold, tuple)  # resolved in __post_init__
        return self.threshold

    @property
    def active(self) -> bool:
        """Whether anything can leave."""
        return can_exit(self.head, self.thresholds)

    def check(self, shape: StackShape) -> None:
        """Raise ``UnsupportedError`` for a bidirectional stack, ``PolicyError`` if maps or head do not fit."""
        if shape.bidirectional:
            raise UnsupportedError(
                "ExitInTime on a bidirectional LSTM: its backward direction starts at the end of the sequence, so "
                "there is no rest to leave out; ExitInDepth and SkipTimesteps work there"
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
        """The top layer's final state [B, P] as foreseen after timestep ``time`` from h of all layers [B, L, P]."""
        if self.translators is None:
            return h[:, -1]
        return self.translators.maps[bucket(self.translators.starts, time)](h.flatten(1))

    def should_exit(self, time: int, translation: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """Whether to leave with this ``translation`` [B, P]: bool [B]; past [B, window, P] is read without a head."""
        assert self.starts is not None  # resolved in __post_init__
        threshold = self.thresholds[bucket(self.starts, time)]
        if self.head is not None:
            return confidence(self.head, translation, self.measure) > threshold
        return (translation - past[:, 0]).pow(2).mean(1).sqrt() < threshold  # NaN, before the first: no


def check_width(head: Head | None, width: int) -> None:
    """Raise ``PolicyError`` if a linear head does not take states of this width."""
    if isinstance(head, LinearHead) and head.weight.shape[1] != width:
        raise PolicyError(
            f"head: it takes states of width {head.weight.shape[1]}, expected {width}, the width of the LSTM's output"
        )
