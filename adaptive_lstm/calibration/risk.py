"""May a loss limit be guaranteed? Tests of the mean of losses in [0, 1], valid for every distribution and sample size.

Notation: n losses l_1 .. l_n, one per sequence, drawn independently from one distribution with mean E[l] (the risk);
m = ``limit``; the hypothesis to reject is H: E[l] > m; 1 - ``confidence`` bounds the probability of a false
certificate, over the draw of the test split. Sequences are the unit: timesteps of one sequence are not independent.

A whole calibration, after Laufer-Goldshtein et al., "Efficiently Controlling Multiple Risks with Pareto Testing" (2022,
arXiv 2210.07913), on top of Angelopoulos et al., "Learn then Test" (2021, arXiv 2110.01052):

1. on one split, estimate risk and cost of every candidate and order them: ``pareto.order_to_test``;
2. on a split that had no part in 1, test in this order until the first failure: ``fixed_sequence`` of ``p_value``;
3. use the cheapest candidate whose hypothesis was rejected, or none.

The guarantee breaks if losses of the test split choose the order, the limit, the confidence or the test. That is why
the kind of a loss is an argument (``binary``) and never read off the sample: a bounded loss can happen to show only
zeros and ones, and the exact binomial test is wrong for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used: half a second that only calibration should cost

from ..codec import brief
from ..errors import CalibrationError
from ..types import DoubleArray

Method: TypeAlias = Literal["auto", "binomial", "hoeffding-bentkus", "wsr"]

BET_LEVEL = 0.05  # WSR bets are tuned for p-values near this level; any constant is valid
BOUND_STEP = 1e-9  # resolution of upper bounds that are found by inversion
MOST_NEEDED = 10_000_000  # sequences; a larger test split is no answer


def p_value(losses: npt.ArrayLike, limit: float, *, binary: bool, method: Method = "auto") -> float:
    """A p-value of H: E[l] > limit: if H is true, it is at most u with probability at most u.

    - "binomial": P[Bin(n, m) <= sum l], exact; for 0/1 losses.
    - "hoeffding-bentkus": min(exp(-n k(min(r, m), m)), e P[Bin(n, m) <= ceil(n r)]) with r the mean loss and
      k(a, b) = a ln(a/b) + (1-a) ln((1-a)/(1-b)); Bates et al., "Distribution-free, Risk-controlling Prediction Sets"
      (2021, arXiv 2101.02703).
    - "wsr": 1 / max_t K_t, K_t = prod_{i<=t} (1 - b_i (l_i - m)), where the bet b_i = min(1, sqrt(2 ln(1/0.05) /
      (n v_{i-1}))) knows only the losses before l_i, through their regularised variance v; Waudby-Smith and Ramdas,
      "Estimating means of bounded random variables by betting" (2020, arXiv 2010.09686), with Ville's inequality.
    - "auto": "binomial" if ``binary``, else "wsr", which needs far fewer sequences where losses spread little;
      "hoeffding-bentkus" is better only where a bounded loss is almost always 0 or 1.

    Args:
        losses: [n] in [0, 1], in the order in which they were drawn; never sorted by value, which would break "wsr".
        limit: largest mean loss that is acceptable, in (0, 1).
        binary: whether the loss is by its nature either 0 or 1, as a disagreement of decisions is.
        method: which test. Choose before the losses are seen.

    Raises:
        CalibrationError: empty losses, values outside [0, 1] (or other than 0 and 1 if ``binary``), a limit outside
            (0, 1), or "binomial" for a loss that is not binary.
    """
    _check_limit(limit)
    if method not in ("auto", "binomial", "hoeffding-bentkus", "wsr"):
        raise CalibrationError(
            f"method: got {brief(method)}, expected 'auto', 'binomial', 'hoeffding-bentkus' or 'wsr'"
        )
    if method == "binomial" and not binary:
        raise CalibrationError("method: 'binomial' is valid for binary losses only; use 'wsr' or 'hoeffding-bentkus'")
    values = _checked(losses, binary)
    if method == "auto":
        method = "binomial" if binary else "wsr"
    if method == "binomial":
        return float(scipy.special.bdtr(np.count_nonzero(values), values.size, limit))
    return _hoeffding_bentkus(values, limit) if method == "hoeffding-bentkus" else _wsr(values, limit)


def joint_p_value(p_values: Iterable[float]) -> float:
    """The p-value of "at least one of several risks is above its limit": the largest of theirs, without correction.

    Raises:
        CalibrationError: no p-value, or one outside [0, 1].
    """
    found = [_check_p(p) for p in p_values]
    if not found:
        raise CalibrationError("got no p-value, expected one per risk")
    return max(found)


def conditional_p_values(
    losses: npt.ArrayLike,
    exit_buckets: npt.ArrayLike,
    limit: float,
    *,
    first: int,
    last: int,
    binary: bool,
    method: Method = "auto",
) -> DoubleArray:
    """P-values of H_t: E[l | exit bucket <= t] > limit for every time bucket t in first .. last, of one exit policy.

    A marginal limit may hide a loss in early exits: 2 % on average can be 10 % of the sequences that exit first. Here
    every accumulated group of early exits is tested on its own members; a group without members gets 1 and so fails.
    Ringel et al., "Early Time Classification with Accumulated Accuracy Gap Control" (2024, arXiv 2402.00857), open the
    buckets from the last one downward: candidate ``first`` exits in the buckets from ``first`` on and has the p-value
    ``joint_p_value(conditional_p_values(...))``; ``fixed_sequence`` over the candidates stops at the first failure.

    Then, with the given confidence, E[l | exit bucket <= t] <= limit for the accepted candidate at all open t at once;
    t = last is all sequences, so the ordinary limit is included. This assumes independent sequences, and thresholds
    that the test split had no part in: given which sequences exit by t, the losses of that group are again independent.

    Args:
        losses: [n] in [0, 1], as in ``p_value``, under this candidate.
        exit_buckets: [n] integers, the time bucket in which each sequence exited; ``last`` if it ran to its end.
        first: earliest open bucket.
        last: final bucket.

    Returns:
        [last - first + 1] one p-value per open bucket.

    Raises:
        CalibrationError: as ``p_value``; or buckets that are not integers in first .. last, one per loss.
    """
    values = _checked(losses, binary)
    _check_limit(limit)
    buckets = np.asarray(exit_buckets)
    if buckets.shape != values.shape or not np.issubdtype(buckets.dtype, np.integer):
        raise CalibrationError(
            f"exit_buckets: got {buckets.dtype} of shape {buckets.shape}, expected one integer per loss {values.shape}"
        )
    if buckets.min() < first or buckets.max() > last:
        raise CalibrationError(
            f"exit_buckets: got buckets {buckets.min()} to {buckets.max()}, expected {first} (first open) to {last}"
        )
    groups = (values[buckets <= t] for t in range(first, last + 1))
    return np.array([p_value(g, limit, binary=binary, method=method) if g.size else 1.0 for g in groups])


def fixed_sequence(p_values: Iterable[float], confidence: float) -> int:
    """How many candidates pass, from the start of a fixed order, before the first p-value above 1 - confidence.

    Every candidate is tested at the full level without correction, because testing ends at the first failure: for a
    false certificate the first unsafe candidate of the order must pass. The order must not come from the losses
    that give the p-values. An iterator is read no further than the first failure, so p-values may be computed lazily.

    Raises:
        CalibrationError: a p-value outside [0, 1], or a confidence outside (0.5, 1).
    """
    level = _level(confidence)
    passed = 0
    for p in p_values:
        if _check_p(p) > level:
            break
        passed += 1
    return passed


def needed(limit: float, confidence: float, observed: float = 0.0, *, binary: bool) -> int:
    """Size of a test split at which one candidate can be certified if its mean loss there is ``observed``.

    For binary losses: from this n on, floor(n * observed) failures always pass. For bounded ones: n losses that all
    equal ``observed``, the kindest case, pass; spread needs more.

    Raises:
        CalibrationError: a limit outside (0, 1), a confidence outside (0.5, 1), an observed loss that is negative or
            so close to the limit (or above it) that ten million sequences are not enough.
    """
    _check_limit(limit)
    level = _level(confidence)
    if not 0 <= observed < limit:
        raise CalibrationError(f"observed: got {observed}, expected a loss in [0, {limit}), below the limit")
    try:
        if not binary:
            return _first(lambda n: _wsr(np.full(n, observed), limit) <= level, start=1)

        def enough_for(failures: int) -> int:
            return _first(lambda n: bool(scipy.special.bdtr(failures, n, limit) <= level), start=failures + 1)

        def passes_when_reached(failures: int) -> bool:
            return math.floor((enough_for(failures) - 1) * observed + 1e-9) < failures

        if observed == 0:
            return enough_for(0)
        # Sizes from k / observed on bring k failures. Each further failure needs fewer more sequences than the one
        # before and brings as many, so once a count passes as soon as it is reached, all later ones do, but for the
        # rounding to whole sequences; hence the look at the next few.
        k = _first(passes_when_reached, start=1)
        return enough_for(max((j for j in range(k, k + 8) if not passes_when_reached(j)), default=k - 1))
    except OverflowError:
        raise CalibrationError(
            f"observed: got {observed}, too close to the limit {limit}: {MOST_NEEDED} sequences are not enough"
        ) from None


def needed_like(losses: npt.ArrayLike, limit: float, confidence: float, *, binary: bool) -> int | None:
    """Size of a test split at which a candidate passes that failed with these losses, if it goes on losing like that.

    For binary losses ``needed`` at their mean; bounded ones are repeated in their order. None: their mean is not below
    the limit, or so close to it that ten million sequences are not enough.

    Raises:
        CalibrationError: as ``p_value``.
    """
    values, level = _checked(losses, binary), _level(confidence)
    _check_limit(limit)
    mean = float(values.mean())
    if mean >= limit:
        return None
    try:
        if binary:
            return needed(limit, confidence, mean, binary=True)
        return _first(lambda n: _wsr(np.resize(values, n), limit) <= level, start=values.size + 1)
    except (CalibrationError, OverflowError):
        return None


def _first(passes: Callable[[int], bool], start: int) -> int:
    """The smallest integer from ``start`` on that passes, where all above it pass too.

    Raises:
        OverflowError: none up to MOST_NEEDED does.
    """
    low, high = start - 1, start
    while not passes(high):
        if high > MOST_NEEDED:
            raise OverflowError
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def upper_bound(losses: npt.ArrayLike, confidence: float, *, binary: bool, method: Method = "auto") -> float:
    """A bound that E[l] stays below with probability ``confidence``, for one candidate chosen without these losses.

    The smallest limit that ``p_value`` rejects at 1 - confidence, to 1e-9. For "binomial" that is the exact bound of
    Clopper and Pearson (1934), as scipy gives it. "wsr" may give less than the sample mean: its wealth counts at its
    peak.

    Raises:
        CalibrationError: as ``p_value``; or a confidence outside (0.5, 1).
    """
    level = _level(confidence)
    values = _checked(losses, binary)
    if binary and method in ("auto", "binomial"):
        test = scipy.stats.binomtest(np.count_nonzero(values), values.size, alternative="less")
        return float(test.proportion_ci(confidence, method="exact").high)
    low, high = 0.0, 1.0
    while high - low > BOUND_STEP:  # no p-value grows with the limit
        middle = (low + high) / 2
        passes = p_value(values, middle, binary=binary, method=method) <= level
        low, high = (low, middle) if passes else (middle, high)
    return high


def _hoeffding_bentkus(losses: DoubleArray, limit: float) -> float:
    # The sum is rounded once (fsum): n * mean can end above the integer it means, and ceil would then add a failure.
    n, total = losses.size, math.fsum(losses)
    r = min(total / n, limit)
    hoeffding = math.exp(
        -n * float(scipy.special.xlogy(r, r / limit) + scipy.special.xlogy(1 - r, (1 - r) / (1 - limit)))
    )
    return min(1.0, hoeffding, math.e * float(scipy.special.bdtr(math.ceil(total), n, limit)))


def _wsr(losses: DoubleArray, limit: float) -> float:
    n = losses.size
    t = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(losses)) / (t + 1)
    variance = (0.25 + np.cumsum((losses - mean) ** 2)) / (t + 1)
    known = np.concatenate([[0.25], variance[:-1]])  # a bet may not know the loss that it is placed on
    bets = np.minimum(1.0, np.sqrt(2 * math.log(1 / BET_LEVEL) / (n * known)))
    log_wealth = np.cumsum(np.log1p(-bets * (losses - limit)))  # a loss of 1 keeps the share ``limit`` at least
    return math.exp(-max(0.0, float(log_wealth.max())))


def _checked(losses: npt.ArrayLike, binary: bool) -> DoubleArray:
    try:
        values = np.asarray(losses, dtype=np.float64)
    except (TypeError, ValueError):
        raise CalibrationError("losses: got something that is no array of numbers, expected [n] in [0, 1]") from None
    if values.ndim != 1 or not values.size:
        raise CalibrationError(f"losses: got shape {values.shape}, expected [n], one loss per sequence, n >= 1")
    bad = ~((values == 0) | (values == 1)) if binary else ~((values >= 0) & (values <= 1))  # NaN is bad in both
    if bad.any():
        worst = int(bad.argmax())
        expected = "0 or 1 (pass binary=False for a loss in between)" if binary else "values in [0, 1]"
        raise CalibrationError(
            f"losses: got {values[worst]} at index {worst} ({bad.sum()} bad of {values.size}), expected {expected}; "
            "scale and clip errors, and never use signed differences"
        )
    return values


def _check_limit(limit: float) -> None:
    if not 0 < limit < 1:
        raise CalibrationError(f"limit: got {limit}, expected a mean loss strictly between 0 and 1")


def _level(confidence: float) -> float:
    """1 - confidence. 0.5 or less is refused: no one means it, but 0.05 for 0.95 is an easy slip."""
    if not 0.5 < confidence < 1:
        raise CalibrationError(f"confidence: got {confidence}, expected more than 0.5 and less than 1, such as 0.95")
    return 1 - confidence


def _check_p(p: float) -> float:
    if not 0 <= p <= 1:
        raise CalibrationError(f"got a p-value of {p}, expected one in [0, 1]")
    return p
