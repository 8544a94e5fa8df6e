"""What timings are held against, and how a race is told: a table of speeds, one line per target, one JSON record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adaptive_lstm.bench import Ratio, Timing, format_seconds, ratio
from eval.common import Record, table
from eval.contenders import Absent

BASELINES = ("torch", "ORT", "ORT int8")


@dataclass(frozen=True)
class Target:
    """``who`` must be at least ``least`` times as fast as ``against``, for every H or for those in ``widths``."""

    who: str
    against: str
    least: float
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """One race: the record for the file and the text for the screen."""

    record: Record
    text: str


def verdict(speed: Ratio, least: float) -> str:
    """Whether a ratio is at least ``least``: 'PASS' by its median, 'MISS' if three quarters of the rounds stay below.

    'OPEN' in between (a tie and some noise must not count as a miss: torch against itself would), 'n/a' where the
    spread forbids any answer.
    """
    if not speed.meaningful:
        return "n/a"
    if speed.median >= least:
        return "PASS"
    return "MISS" if speed.p75 < least else "OPEN"


def judge(target: Target, timings: Mapping[str, Timing]) -> dict[str, object]:
    """One target against the timings of one race: its verdict, the line to show and the figures behind it."""
    if missing := [name for name in (target.who, target.against) if name not in timings]:
        return {"verdict": "n/a", "line": f"n/a   {' and '.join(missing)} did not take part"}
    speed = ratio(timings[target.against], timings[target.who])
    answer = verdict(speed, target.least)
    line = f"{answer:4}  {target.who} is {speed} as fast as {target.against} (at least {target.least:g}x)"
    return {"verdict": answer, "line": line, "speed": speed.as_dict(), "least": target.least}


def race_result(
    group: str,
    title: str,
    case: tuple[int, ...],
    timings: Mapping[str, Timing],
    targets: Sequence[Target],
    absent: Sequence[Absent] = (),
) -> Result:
    """All contenders with their speed relative to the baselines. case: I, H, L and what else names the race."""
    baselines = [name for name in BASELINES if name in timings]
    rows = []
    for name, timing in timings.items():
        quartiles = f"{format_seconds(timing.p25)} to {format_seconds(timing.p75)}"
        rows.append([name, format_seconds(timing.median), quartiles, *(ratio(timings[b], timing) for b in baselines)])
    header = [group, "median", "quartiles", *(f"against {name}" for name in baselines)]
    judged = [judge(target, timings) for target in targets if not target.widths or case[1] in target.widths]
    notes = [f"absent: {one.name} ({one.reason})" for one in absent]
    text = "\n".join([table(title, header, rows), *(str(one["line"]) for one in judged), *notes])
    return Result(record(group, str(case), timings, judged), text)


def record(
    group: str, case: str, timings: Mapping[str, Timing], targets: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """The JSON form of a race; every target has at least a 'verdict'."""
    seconds = {name: timing.as_dict() for name, timing in timings.items()}
    return {"group": group, "case": case, "seconds": seconds, "targets": list(targets)}
