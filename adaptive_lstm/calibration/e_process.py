"""Evidence that a mean loss is above its limit, valid at every time that one looks at it.

Losses l_1, l_2, ... in [0, 1] arrive one by one; the hypothesis is H: E[l_t | past] <= m, with m the limit. For a bet
b >= 0 the wealth K_t(b) = prod_{s<=t} (1 + b (l_s - m)) is a nonnegative supermartingale under H, and so is its mean
over any fixed set of bets, E_t. By Ville's inequality P(E_t >= 1 / alpha at any t) <= alpha: testing by betting, Ramdas
and Waudby-Smith, "Estimating means of bounded random variables by betting" (2020, arXiv 2010.09686); used for risks in
operation by Feng et al., "Active, anytime-valid risk controlling prediction sets" (2024, arXiv 2406.10490).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..types import DoubleArray

BETS = 24  # fixed bets whose mean is the evidence
LEAST_BET = 0.05  # grows fastest where the risk is 5 % above the limit; closer to it audits are not expected to tell
MOST_COUNTED = 2**62  # losses
ROUNDING = 1e-9  # of log wealth, for each of them
BOLDEST = 0.95  # of 1 / m, from which on one loss of 0 would take all wealth


def bets(limit: float) -> DoubleArray:
    """The fixed bets b [BETS] of a limit m: geometric from ``LEAST_BET`` to just below 1 / m.

    For 0/1 losses of risk p the best one is (p - m) / (m (1 - m)), whose wealth grows by KL(p, m) per audit.
    """
    return np.geomspace(LEAST_BET, max(BOLDEST / limit, 2 * LEAST_BET), BETS)


@dataclass(frozen=True)
class EProcess:
    """The evidence after some audits; immutable.

    Attributes:
        limit: m, in (0, 1).
        log_wealth: log K_t(b) for each of ``bets(limit)``.
        count: t, how many losses were seen.
        total: their sum.
        peak: the largest log evidence so far.
    """

    limit: float
    log_wealth: tuple[float, ...] = (0.0,) * BETS
    count: int = 0
    total: float = 0.0
    peak: float = 0.0

    @property
    def log_evidence(self) -> float:
        """log E_t, now."""
        return float(_log_mean(np.array(self.log_wealth)[None])[0])

    @property
    def mean(self) -> float:
        """Mean of the losses; 0 before the first."""
        return self.total / self.count if self.count else 0.0

    def after(self, losses: npt.ArrayLike) -> EProcess:
        """The evidence after one more loss, or several in their order.

        Raises:
            InputError: a loss that is not in [0, 1].
        """
        values = np.atleast_1d(np.asarray(losses, dtype=np.float64))
        if not bool(((values >= 0) & (values <= 1)).all()):  # also catches NaN
            raise InputError(f"losses: got {values}, expected values in [0, 1]")
        walk = self._walk(values)
        if not len(walk):
            return self
        return replace(
            self,
            log_wealth=tuple(walk[-1].tolist()),
            count=self.count + len(values),
            total=self.total + float(values.sum()),
            peak=max(self.peak, float(_log_mean(walk).max())),
        )

    def log_evidences(self, losses: npt.ArrayLike) -> DoubleArray:
        """log E [n] after each of n more losses [n]."""
        return _log_mean(self._walk(np.asarray(losses, dtype=np.float64)))

    def _walk(self, losses: DoubleArray) -> DoubleArray:
        """log K(b) [n, BETS] after each of n losses [n]."""
        steps = np.log1p(bets(self.limit) * (losses[:, None] - self.limit))
        walk: DoubleArray = np.array(self.log_wealth) + np.cumsum(steps, axis=0)
        return walk

    def merged(self, other: EProcess) -> EProcess:
        """The evidence of two processes that audited different sequences: wealths multiply.

        It is their evidence now. A peak that either had before is that one's own, and does not count for both.

        Raises:
            InputError: another limit.
        """
        if other.limit != self.limit:
            raise InputError(f"got audits of the limits {self.limit:g} and {other.limit:g}, expected one limit")
        both = tuple(a + b for a, b in zip(self.log_wealth, other.log_wealth, strict=True))
        one = replace(self, log_wealth=both, count=self.count + other.count, total=self.total + other.total, peak=0.0)
        return replace(one, peak=max(0.0, one.log_evidence))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "log_wealth": list(self.log_wealth)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> EProcess:
        """Read what ``as_dict`` gave.

        Raises:
            InputError: something else.
        """
        try:
            read = EProcess(
                float(values["limit"]),
                tuple(float(v) for v in values["log_wealth"]),
                int(values["count"]),
                float(values["total"]),
                float(values["peak"]),
            )
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"got no evidence of an audit, expected what as_dict() gives: {error!r:.100}") from error
        if not read._possible():
            raise InputError("got evidence of an audit with values that cannot be, expected what as_dict() gives")
        return read

    def _possible(self) -> bool:
        """Whether so many losses in [0, 1] can have led here."""
        if not (len(self.log_wealth) == BETS and 0 < self.limit < 1 and 0 <= self.total <= self.count <= MOST_COUNTED):
            return False
        worst, best = (self.count * np.log1p(bets(self.limit) * (loss - self.limit)) for loss in (0.0, 1.0))
        slack = ROUNDING * (1 + self.count)
        wealth = np.array(self.log_wealth)
        within = (worst - slack <= wealth) & (wealth <= best + slack)  # NaN is not
        return bool(within.all()) and 0 <= self.peak <= best.max() + slack


def _log_mean(log_wealth: DoubleArray) -> DoubleArray:
    """log of the mean over the last axis, [n]."""
    top = log_wealth.max(-1)
    mean: DoubleArray = top + np.log(np.exp(log_wealth - top[:, None]).mean(-1))
    return mean
