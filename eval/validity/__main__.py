"""Are certificates false as rarely as they promise? Calibrate-then-test, many times, on data with known risks.

``python -m eval.validity``. Forty candidates with known true risk and cost; every repeat draws a search split (Pareto
front, order) and a test split (fixed sequence of p-values) and keeps the cheapest candidate that passed. A certificate
is false if the true risk of the one kept is above its limit, and may be so in at most 1 - confidence of the repeats.
The family "edge" is the hardest: all candidates lie just above the limit, so every certificate is false. "untested" is
how often the obvious shortcut is wrong: take the cheapest candidate whose estimate on the search split is below the
limit. Savings are a share of those of an oracle, which knows the true risks; without a certificate nothing is saved.

``--objective latency`` goes the way of a calibration by time: the finalists are timed by a simulated clock, and only
those that it says save time are tested, in the order of what it says (``by_clock.py``); savings are of true time.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from adaptive_lstm.calibration.pareto import order_to_test
from adaptive_lstm.calibration.risk import fixed_sequence, joint_p_value, p_value
from eval.shared import common
from eval.validity.by_clock import order_by_clock, true_time

REPEATS = 1000
QUICK_REPEATS = 50
CANDIDATES = 40
SEARCH, TEST = 200, 500  # sequences per split
SHARED = 0.7  # how often candidates share a sequence's difficulty instead of a draw of their own
CONFIDENCES = (0.90, 0.95)
HEADER = ["losses (family)", "confidence", "false", "allowed", "untested", "certified", "of oracle", ""]
CHANCE = 0.01  # binomial slack: a correct procedure exceeds its bound in at most this share of the rows

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """A loss with a known mean: its quantile function at u for mean r, and whether it is always 0 or 1."""

    quantile: Callable[[FloatArray, FloatArray | float], FloatArray]
    binary: bool


BINARY = Loss(lambda u, r: (u > 1 - r).astype(np.float64), binary=True)
LIGHT = Loss(lambda u, r: 1 - (1 - u) ** (r / (1 - r)), binary=False)  # Beta(1, (1 - r) / r): like an exponential
HEAVY = Loss(lambda u, r: u ** ((1 - r) / r), binary=False)  # Beta(r / (1 - r), 1): mostly near 0, some near 1
CASES = {
    "0/1": (BINARY,),
    "light": (LIGHT,),
    "heavy": (HEAVY,),
    "0/1 and 0/1": (BINARY, BINARY),
    "0/1 and heavy": (BINARY, HEAVY),
    "light and heavy": (LIGHT, HEAVY),
}
LIMITS = (0.05, 0.10)  # of the first and the second risk


@dataclass(frozen=True)
class Family:
    """The true costs and risks of the candidates.

    cost: [K] share of the dense work; risks: [2, K] mean losses.
    """

    cost: FloatArray
    risks: FloatArray

    def ratio(self, q: int) -> FloatArray:
        """[K] the worst of the first q true risks, as a share of its limit."""
        worst: FloatArray = (self.risks[:q] / np.array(LIMITS)[:q, None]).max(0)
        return worst


def families() -> dict[str, Family]:
    """Two policies of different quality interleaved, whose risks grow with what they skip; and the hardest case."""
    skip = np.linspace(0.05, 1, CANDIDATES)
    worse = np.where(np.arange(CANDIDATES) % 3 == 1, 1.4, 1.0)
    bent = np.array([3.0 * worse * skip**1.5, 2.5 * worse * skip])
    edge = np.array([np.full(CANDIDATES, 1 + 1e-6), np.full(CANDIDATES, 0.2)])
    limits = np.array(LIMITS)[:, None]
    return {"curve": Family(1 - 0.9 * skip, limits * bent), "edge": Family(1 - 0.9 * skip, limits * edge)}


@dataclass(frozen=True)
class Outcome:
    """One repeat: the kept candidate per confidence (None: not certified), and the one of the shortcut."""

    kept: tuple[int | None, ...]
    untested: int | None


def meet(rng: np.random.Generator, difficulty: FloatArray, candidates: int) -> FloatArray:
    """[candidates, n] uniform numbers: the difficulty [n] that they share, or else a draw of each candidate's own."""
    own = (rng.random((candidates, difficulty.size)) - SHARED) / (1 - SHARED)
    return np.where(own < 0, difficulty, own)


def calibrate_once(
    family: Family, losses: tuple[Loss, ...], rng: np.random.Generator, *, by_time: bool = False
) -> Outcome:
    """Search split, front, order, test split, fixed sequence: as in ``adaptive_lstm.calibrate``, without models."""
    risks = list(zip(losses, family.risks, LIMITS, strict=False))
    estimates = []
    for loss, true, limit in risks:
        u = meet(rng, rng.random(SEARCH), CANDIDATES)
        estimates.append(loss.quantile(u, true[:, None]).mean(1) / limit)
    estimate = np.max(estimates, axis=0)
    order = order_by_clock(family.cost, estimate, rng) if by_time else order_to_test(family.cost, estimate)
    difficulties = [rng.random(TEST) for _ in losses]
    seen: list[float] = []

    def p_values() -> Iterator[float]:
        for k in order:
            each = (
                p_value(loss.quantile(meet(rng, difficulty, 1)[0], true[k]), limit, binary=loss.binary)
                for (loss, true, limit), difficulty in zip(risks, difficulties, strict=True)
            )
            seen.append(joint_p_value(each))
            yield seen[-1]

    fixed_sequence(p_values(), min(CONFIDENCES))  # the others stop no later
    passed = [fixed_sequence(seen, confidence) for confidence in CONFIDENCES]
    return Outcome(tuple(int(order[n - 1]) if n else None for n in passed), int(order[-1]) if len(order) else None)


def summarise(ratio: FloatArray, saving: FloatArray, outcomes: list[Outcome]) -> Iterator[dict[str, object]]:
    """One row per confidence: the rate of false certificates, the rate allowed, and the savings.

    ratio: [K] the candidates' worst true risk, as a share of its limit; saving: [K] share of the dense work.
    """
    repeats = len(outcomes)
    unsafe = ratio > 1
    best = float(saving[~unsafe].max()) if (~unsafe).any() else None
    shortcut = sum(o.untested is not None and bool(unsafe[o.untested]) for o in outcomes)
    for i, confidence in enumerate(CONFIDENCES):
        kept = [k for o in outcomes if (k := o.kept[i]) is not None]
        false = int(unsafe[kept].sum()) / repeats
        allowed = float(binom.ppf(1 - CHANCE, repeats, 1 - confidence)) / repeats
        yield {
            "confidence": confidence,
            "false": false,
            "allowed": allowed,
            "verdict": "PASS" if false <= allowed else "MISS",
            "untested": shortcut / repeats,
            "certified": len(kept) / repeats,
            "saving_of_oracle": None if best is None else float(saving[kept].sum()) / repeats / best,
        }


def allowance(repeats: int) -> str:
    """The meaning of the column "allowed"."""
    return f"allowed: 1 - confidence, plus what {repeats} draws exceed it by in {CHANCE:.0%} of all such rows"


def row(name: str, kinds: str, found: Mapping[str, object]) -> list[str]:
    """A summary as cells of the table."""
    share = found["saving_of_oracle"]
    cells = [f"{found[key]:.3f}" for key in ("false", "allowed", "untested", "certified")]
    saved = "" if share is None else f"{share:.2f}"
    return [f"{kinds} ({name})", f"{found['confidence']:.2f}", *cells, saved, str(found["verdict"])]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--objective", choices=("latency", "macs"), default="macs", help="what is to be saved")
    options = parser.parse_args()
    by_time = options.objective == "latency"
    repeats = QUICK_REPEATS if options.quick else REPEATS
    records, rows = [], []
    with common.inference(options.threads):
        setups = itertools.product(families().items(), CASES.items())
        for seed, ((name, family), (kinds, losses)) in enumerate(setups):
            rng = np.random.default_rng(seed)
            outcomes = [calibrate_once(family, losses, rng, by_time=by_time) for _ in range(repeats)]
            saving = 1 - (true_time(family.cost) if by_time else family.cost)
            found = list(summarise(family.ratio(len(losses)), saving, outcomes))
            case = f"{kinds}, by time" if by_time else kinds
            records.append({"group": name, "case": case, "repeats": repeats, "test": TEST, "limits": LIMITS,
                            "rows": found})  # fmt: skip
            rows += [row(name, case, one) for one in found]
    if options.json:
        print("\n".join(json.dumps(record) for record in records))
    else:
        limits = " and ".join(f"{limit:g}" for limit in LIMITS)
        title = f"{repeats} calibrations, {TEST} test sequences, limits {limits}: share of false certificates"
        print(common.table(title, HEADER, rows))
        print(f"\n{allowance(repeats)}")
    common.save(options, "validity", records)


if __name__ == "__main__":
    main()
