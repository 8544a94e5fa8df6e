"""The frontier of a calibration as plain values and text: its candidates in a table, and what the certificate says."""

from collections.abc import Sequence
from textwrap import fill

from ..calibration.calibrate import Calibration, Point
from ..calibration.certificate import Certificate
from ..calibration.pareto import pareto_order
from ..policies import Dense, kind_of, members
from ..policies.combined import acts
from .tables import aligned

SHOWN = 14  # lines of the table
WIDTH = 120  # characters of a line of text


def families(point: Point) -> str:
    """The policy families that a candidate joins, "Delta + ExitInTime"; "Dense" if it skips nothing."""
    found: dict[str, None] = {}
    for policy in point.settings.values():
        found |= dict.fromkeys(kind_of(one).name for one in members(policy) if acts(one))
    return " + ".join(sorted(found)) or Dense.kind.name


def risk_scale(calibration: Calibration) -> tuple[str, float, tuple[float, ...]]:
    """How to put risks on one axis: its name, the limit there, and a factor per loss.

    With one loss that is the loss itself; with several, the share of its limit that the worst of them uses up.
    """
    losses = calibration.certificate.losses
    if len(losses) == 1:
        return str(losses[0]["name"]).replace("_", " "), float(losses[0]["limit"]), (1.0,)
    return "worst loss / its limit", 1.0, tuple(1 / float(one["limit"]) for one in losses)


def height(risks: Sequence[float], factors: Sequence[float]) -> float:
    """Where risks lie on the axis of `risk_scale`."""
    return max(r * f for r, f in zip(risks, factors, strict=True))


def pareto(calibration: Calibration) -> list[Point]:
    """The candidates that no other beats in both cost and risk, from the cheapest up."""
    points, (_, _, factors) = calibration.frontier, risk_scale(calibration)
    order = pareto_order([point.cost for point in points], [height(point.search_risks, factors) for point in points])
    return [points[i] for i in reversed(order)]


def chosen(calibration: Calibration) -> Point | None:
    """The candidate that the certificate is about, None if nothing was certified."""
    certified = [point for point in calibration.frontier if point.certified]
    return min(certified, key=lambda point: point.cost) if certified else None


def render(calibration: Calibration, cost: str) -> str:
    """The best candidates and those tested as a table, cheapest first; `cost` says what the costs are shares of."""
    name, limit, factors = risk_scale(calibration)
    best = pareto(calibration)
    worth = [point for point in calibration.frontier if point in best or point.test_risks is not None]
    shown = worth[-SHOWN:]  # the tested ones are the careful ones, at the end
    header = ["candidate", "cost", "macs", "search", "test", "p", ""]
    picked = chosen(calibration)
    lines = [
        [
            point.name,
            f"{point.cost:.3f}",
            f"{point.macs:.3f}",
            f"{height(point.search_risks, factors):.4f}",
            "" if point.test_risks is None else f"{height(point.test_risks, factors):.4f}",
            "" if point.p_value is None else f"{point.p_value:.2g}",
            "chosen" if point is picked else "passed" if point.certified else "",
        ]
        for point in shown
    ]
    left_out = f" {len(worth) - SHOWN} cheaper ones that lose more are left out." if len(worth) > SHOWN else ""
    return f"""{aligned([header, *lines])}

Of {len(calibration.frontier)} candidates those that no other beats in both cost and loss, and those tested.{left_out}
cost: {cost}, as a share of the dense model's; macs: multiply-accumulates, likewise.
search, test: {name} on that split, limit {limit:g}; p: of its being above the limit, tested from the most careful
  candidate on until the first that does not pass."""


def proof(certificate: Certificate, unit: str = "sequences") -> str:
    """The certificate, what it rests on and what it assumes; `unit`: what a sequence is, in the plural."""
    count = {name: split["count"] for name, split in certificate.sequences.items()}
    rests = (
        f"Tested on {count['test']} {unit}, which are not among those that it was fitted ({count['fit']}) and chosen "
        f"({count['search']}) on."
    )
    lines = [*str(certificate).splitlines(), rests, certificate.assumption]
    return "\n".join(fill(line, WIDTH, subsequent_indent="  ") for line in lines)


def records(calibration: Calibration) -> list[dict[str, object]]:
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
