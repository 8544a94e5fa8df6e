"""The order in which candidates are tested: the Pareto front of estimated risk and cost, the most careful first.

``calibrate`` orders its candidates with these functions, and so does ``eval.validity``, which simulates certificates.
The estimates come from the search split. The guarantee of ``risk.fixed_sequence`` holds for every order that the test
split had no part in; a good order only certifies more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from ..errors import CalibrationError
from ..types import DoubleArray

MAX_TIES = 6  # candidates of equal estimated risk that are tested
MAX_TESTED = 16  # candidates that are tested: each of them runs on the whole test split
MIN_COST = 1e-12  # costs are compared by their logarithms; a candidate that does no work at all costs this much

Indices = npt.NDArray[np.intp]
Families = frozenset[str]
NOTHING = Families()


def pareto_order(
    cost: npt.ArrayLike, risk: npt.ArrayLike, *, max_ties: int = 1, families: Sequence[Families] | None = None
) -> Indices:
    """The candidates on the Pareto front, estimated risk ascending; of equal risk, cost descending.

    A candidate is dropped if another has a lower risk and no higher cost; of those equal in both the first stays. Of
    several with the same risk at most ``max_ties`` stay, the cheapest always. More than one are tested: a low
    estimate (above all 0) may be luck, and as testing stops at the first failure, more careful candidates should come
    first. ``max_ties=1`` gives the front in the strict sense. The dearer of two is the more careful one only where they
    skip by the same ``families``: of a tie those of the cheapest one's families stay, and what skips nothing.

    Args:
        cost: [K] any unit, not negative; lower is better.
        risk: [K] estimates from data other than the test split. With several risks, one number that says how far the
            worst of them is from its limit: ``max_j risk_j / limit_j``.
        max_ties: candidates of equal risk that stay, at least 1.
        families: [K] of each candidate, empty where nothing is skipped; None: all are alike.

    Returns:
        Indices of the candidates, at most K.

    Raises:
        CalibrationError: arrays of different shapes, empty, or with values that are not finite.
    """
    costs, risks = np.asarray(cost, dtype=np.float64), np.asarray(risk, dtype=np.float64)
    if costs.ndim != 1 or costs.shape != risks.shape or not costs.size:
        raise CalibrationError(f"got cost {costs.shape} and risk {risks.shape}, expected one of each per candidate")
    if not (np.isfinite(costs).all() and np.isfinite(risks).all()):
        raise CalibrationError("got costs or risks that are not finite; remove candidates without an estimate")
    front: list[int] = []
    cheapest = math.inf  # of all candidates with less risk
    for _, group in groupby(np.lexsort((-costs, risks)).tolist(), key=risks.__getitem__):
        by_cost: dict[float, int] = {}
        for k in group:
            if costs[k] < cheapest:
                by_cost.setdefault(float(costs[k]), k)
        tied = list(by_cost.values())
        if families is not None and tied:
            same = families[min(tied, key=costs.__getitem__)]
            tied = [k for k in tied if families[k] in (same, NOTHING)]
        front += [tied[i] for i in spread_by_cost(costs[tied], max_ties)]
        cheapest = min([cheapest, *by_cost])
    return np.array(front, dtype=np.intp)


def spread_by_cost(cost: DoubleArray, count: int) -> Indices:
    """At most ``count`` of the candidates, at about equal ratios of their costs, the cheapest and the dearest included.

    Args:
        cost: [K] not negative.
        count: at least 1; of one only the cheapest stays.

    Returns:
        Indices, ascending.
    """
    if len(cost) <= count:
        return np.arange(len(cost))
    logarithms = np.log(np.maximum(cost, MIN_COST))
    wanted = np.linspace(logarithms.min(), logarithms.max(), count)
    return np.unique(np.abs(logarithms[None] - wanted[:, None]).argmin(1))


def order_to_test(cost: npt.ArrayLike, ratio: npt.ArrayLike, families: Sequence[Families] | None = None) -> Indices:
    """The candidates to test, in this order; the cheapest of them comes last.

    Args:
        cost: [K] any unit, not negative.
        ratio: [K] estimated risk as a multiple of its limit, of several risks the worst; infinity where there is no
            estimate. Candidates above 1 are not tested.
        families: as for ``pareto_order``.

    Returns:
        Indices of at most ``MAX_TESTED`` candidates.
    """
    costs, ratios = np.asarray(cost, dtype=np.float64), np.asarray(ratio, dtype=np.float64)
    allowed = np.flatnonzero(ratios <= 1)
    if not allowed.size:
        return allowed
    kinds = None if families is None else [families[int(k)] for k in allowed]
    order = allowed[pareto_order(costs[allowed], ratios[allowed], max_ties=MAX_TIES, families=kinds)]
    return order[spread_by_cost(costs[order], MAX_TESTED)]
