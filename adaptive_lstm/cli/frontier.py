"""A calibration as text and plain values: a table of its candidates, and its certificate in words."""

from collections.abc import Sequence
from textwrap import fill

from ..calibration.calibrate import Calibration, Point
from ..calibration.certificate import Certificate
from ..calibration.pareto import pareto_order
from ..policies import Dense, kind_of, members
from ..policies.combined import acts
from .tables import aligned

MAX_ROWS = 14  # of the table
LINE_WIDTH = 120  # characters


def families(point: Point) -> str:
    """The kinds of policies in a candidate, such as "Delta + ExitInTime"; "Dense" if it skips nothing."""
    found: dict[str, None] = {}
    for policy in point.settings.values():
        found |= dict.fromkeys(kind_of(one).name for one in members(policy) if acts(one))
    return " + ".join(sorted(found)) or Dense.kind.name


def risk_scale(calibration: Calibration) -> tuple[str, float, tuple[float, ...]]:
    """One axis for the risks of a calibration: its name, the limit on it, and a factor for each loss.

    With one loss the axis is that loss; with several it is the largest ratio of a loss to its limit.
    """
    losses = calibration.certificate.losses
    if len(losses) == 1:
        return str(losses[0]["name"]).replace("_", " "), float(losses[0]["limit"]), (1.0,)
    return "largest loss / its limit", 1.0, tuple(1 / float(one["limit"]) for one in losses)


def risk_on_axis(risks: Sequence[float], factors: Sequence[float]) -> float:
    """Place of a candidate's risks on the axis of `risk_scale`."""
    return max(r * f for r, f in zip(risks, factors, strict=True))


def pareto(calibration: Calibration) -> list[Point]:
    """The candidates that no other beats in both cost and risk, cheapest first."""
    points, (_, _, factors) = calibration.frontier, risk_scale(calibration)
    order = pareto_order(
        [point.cost for point in points], [risk_on_axis(point.search_risks, factors) for point in points]
    )
    return [points[i] for i in reversed(order)]


def certified_point(calibration: Calibration) -> Point | None:
    """The candidate that the certificate covers; None if nothing was certified."""
    certified = [point for point in calibration.frontier if point.certified]
    return min(certified, key=lambda point: point.cost) if certified else None


def table(calibration: Calibration, cost: str) -> str:
    """The best candidates and the tested ones as a table, cheapest first.

    Args:
        calibration: to show.
        cost: what its costs are, in words.
    """
    name, limit, factors = risk_scale(calibration)
    best = pareto(calibration)
    relevant = [point for point in calibration.frontier if point in best or point.test_risks is not None]
    shown = relevant[-MAX_ROWS:]  # tested candidates are careful ones, at the end
    header = ["candidate", "cost", "macs", "loss, search", "loss, test", "p-value", ""]
    certified = certified_point(calibration)
    lines = [
        [
            point.name,
            f"{point.cost:.3f}",
            f"{point.macs:.3f}",
            f"{risk_on_axis(point.search_risks, factors):.4f}",
            "" if point.test_risks is None else f"{risk_on_axis(point.test_risks, factors):.4f}",
            "" if point.p_value is None else f"{point.p_value:.2g}",
            "chosen" if point is certified else "passed" if point.certified else "",
        ]
        for point in shown
    ]
    more = len(relevant) - MAX_ROWS
    omitted = f" {more} cheaper ones with a larger loss are not shown." if more > 0 else ""
    return f"""{aligned([header, *lines])}

Of {len(calibration.frontier)} candidates: those that no other beats in both cost and loss, and those tested.{omitted}
cost: {cost}; macs: multiply-accumulates; both as a share of the same model without skipping.
loss: {name} on the search and on the test split, limit {limit:g}.
p-value: of the hypothesis that the loss exceeds the limit; candidates are tested from the most careful one on, until
  the first that fails."""


def certificate_text(certificate: Certificate, unit: str = "sequences") -> str:
    """The certificate in words: what it guarantees, the data behind it, and what it assumes.

    Args:
        certificate: to show.
        unit: what a sequence is, in the plural.
    """
    count = {name: split["count"] for name, split in certificate.sequences.items()}
    data = f"Tested on {count['test']} {unit}; fitted on {count['fit']} and chosen on {count['search']} others."
    lines = [*str(certificate).splitlines(), data, certificate.assumption]
    return "\n".join(fill(line, LINE_WIDTH, subsequent_indent="  ") for line in lines)


def rows(calibration: Calibration) -> list[dict[str, object]]:
    """Every candidate as plain values for JSON, cheapest first."""
    return [
        {
            "name": point.name,
            "families": families(point),
            "cost": point.cost,
            "macs": point.macs,
            "search_risks": list(point.search_risks),
            "test_risks": None if point.test_risks is None else list(point.test_risks),
            "p_value": point.p_value,
            "certified": point.certified,
        }
        for point in calibration.frontier
    ]
