"""What a calibration is to certify: losses, their limits and a confidence; its tests are those of ``risk.py``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..codec import brief, check_flag, is_iterable
from ..errors import InputError
from ..losses import Loss, as_loss
from ..model_io import first_tensor, require_function
from ..policies import bucket
from . import risk
from .candidates import Candidate
from .evaluation import LabelledInput, Outcome
from .splits import check_size

EXPECTED_MARGIN = 1.2  # early exits expected in the test split, as a multiple of the number that a proof needs


@dataclass(frozen=True)
class Guarantee:
    """The mean of every loss is at most its limit, with this confidence.

    Attributes:
        losses: what a sequence may lose.
        limits: the largest mean of each, in (0, 1).
        confidence: in (0.5, 1), of all of them together.
        conditional: whether the limits also hold for the sequences that exit first, in every time bucket.
        binary: which losses can only be 0 or 1; empty until ``on`` has seen outputs.
        test: size of the test split; 0 until ``on``.
    """

    losses: tuple[Loss, ...]
    limits: tuple[float, ...]
    confidence: float
    conditional: bool
    binary: tuple[bool, ...] = ()
    test: int = 0

    @staticmethod
    def of(
        loss: Any,
        max_loss: Any,
        confidence: Any,
        conditional: bool,
        output: Callable[[Any], torch.Tensor] = first_tensor,
    ) -> Guarantee:
        """From the arguments of ``calibrate``.

        Raises:
            InputError: no loss, not one limit for each, numbers out of range, or ``output`` is no function.
        """
        require_function(output)
        check_flag("conditional", conditional)
        losses = tuple(as_loss(one).reading(output) for one in (loss if isinstance(loss, list | tuple) else [loss]))
        several = isinstance(max_loss, list | tuple | np.ndarray) and is_iterable(max_loss)
        given = list(max_loss) if several else [max_loss]
        if len(losses) != len(given) or not losses:
            raise InputError(f"got {len(losses)} losses and {len(given)} values of max_loss, expected one for each")
        limits = tuple(between(m, 0, "max_loss") for m in given)
        return Guarantee(losses, limits, between(confidence, 0.5, "confidence"), conditional)

    def check(self, labelled: Sequence[LabelledInput], test: int, share: float) -> None:
        """Raise what makes a certificate impossible, judged by some of the sequences.

        Args:
            labelled: sequences with the outputs of the original model.
            test: size of the test split.
            share: of the test split, of all sequences.

        Raises:
            CalibrationError: the test split is too small.
        """
        check_size(test, self.limits, self.confidence, self._binary(labelled), share)

    def on(self, labelled: Sequence[LabelledInput], test: int, share: float) -> Guarantee:
        """The same, knowing the size of the test split and from all outputs whether losses can only be 0 or 1.

        Raises:
            InputError: a loss means nothing for these outputs.
            CalibrationError: as ``check``.
        """
        for loss in self.losses:
            loss.check([one.dense for one in labelled], [one.sizes for one in labelled])
        self.check(labelled, test, share)
        return replace(self, binary=self._binary(labelled), test=test)

    def _binary(self, labelled: Sequence[LabelledInput]) -> tuple[bool, ...]:
        return tuple(all(bool(loss.binary(one.dense)) for one in labelled) for loss in self.losses)

    @property
    def certifiable_ratio(self) -> float:
        """The largest mean loss that a test split of this size can certify, in tenths of its limit."""

        def enough(share: float) -> bool:
            pairs = zip(self.limits, self.binary, strict=True)
            return self.test >= max(risk.needed(m, self.confidence, share * m, binary=b) for m, b in pairs)

        return max((tenths / 10 for tenths in range(1, 10) if enough(tenths / 10)), default=0.0)

    def p_value(self, candidate: Candidate, outcome: Outcome) -> float:
        """Of "some mean loss is above its limit", from the test split."""
        found = []
        for losses, limit, binary in zip(outcome.losses.T, self.limits, self.binary, strict=True):
            found.append(risk.p_value(losses, limit, binary=binary))
            if (exits := self._exits(candidate, outcome)) is not None:
                buckets, first, last = exits
                found += list(risk.conditional_p_values(losses, buckets, limit, first=first, last=last, binary=binary))
        return risk.joint_p_value(found)

    def size_needed(self, candidate: Candidate, outcome: Outcome) -> int | None:
        """Size of the test split at which a candidate would pass that failed, if it goes on losing as it did there.

        None: a mean loss is not below its limit, or nothing is known of the sequences that exit first.
        """
        sizes: list[int] = []
        exits = self._exits(candidate, outcome)
        for losses, limit, binary in zip(outcome.losses.T, self.limits, self.binary, strict=True):
            groups = [losses]
            if exits is not None:
                buckets, first, last = exits
                groups += [losses[buckets <= t] for t in range(first, last)]
            for group in groups:
                size = risk.needed_like(group, limit, self.confidence, binary=binary) if group.size else None
                if size is None:
                    return None
                sizes.append(math.ceil(size * len(losses) / group.size))
        return max(sizes)

    def worst_early_exit_ratio(self, candidate: Candidate, outcome: Outcome) -> float:
        """With ``conditional``: the largest mean loss of the sequences that exit first, as a multiple of its limit.

        0 where that does not count; infinity if the test split will hardly have enough of them to tell.
        """
        exits = self._exits(candidate, outcome)
        if exits is None:
            return 0.0
        buckets, first, last = exits
        ratios = []
        for limit, binary, losses in zip(self.limits, self.binary, outcome.losses.T, strict=True):
            least = EXPECTED_MARGIN * risk.needed(limit, self.confidence, binary=binary) * len(losses) / self.test
            for t in range(first, last):
                early = losses[buckets <= t]
                ratios.append(float(early.mean()) / limit if len(early) >= max(least, 1) else math.inf)
        return max(ratios, default=0.0)

    def _exits(self, candidate: Candidate, outcome: Outcome) -> tuple[npt.NDArray[np.int64], int, int] | None:
        """Bucket in which every sequence exited, the first open bucket and the last; None where that does not count."""
        exits = next((s for s, _ in candidate.choices if s.starts), None) if self.conditional else None
        if exits is None:
            return None
        last = len(exits.starts) - 1
        # After h timesteps, so during timestep h - 1; sequences that did not exit count to the last bucket.
        buckets = [bucket(exits.starts, h - 1) if h else last for h in outcome.exit_times.tolist()]
        return np.array(buckets, dtype=np.int64), exits.first_open_bucket, last


def between(value: Any, low: float, name: str) -> float:
    """An argument as a float above ``low`` and below 1; raises ``InputError`` if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low < number < 1:
        raise InputError(f"{name}: got {brief(value)}, expected a number above {low} and below 1")
    return number
