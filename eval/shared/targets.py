"""Targets of timings, and the report of a race: a table of speeds, one line per target, one JSON record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adaptive_lstm.bench import MIN_ROUNDS, Ratio, Timing, format_seconds, ratio
from adaptive_lstm.peers import Unavailable
from eval.shared.common import Record, table

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
    """Whether a ratio is at least ``least``.

    'PASS' or 'MISS' where the quartiles agree; where they do not, 'PASS' if the median reaches it, else 'OPEN' (a tie
    with some noise must not count as a miss; torch against itself would be one). 'n/a' where there are too few rounds.
    """
    if speed.rounds < MIN_ROUNDS:
        return "n/a"
    if speed.p25 >= least or speed.p75 < least:
        return "PASS" if speed.p25 >= least else "MISS"
    if not speed.meaningful:
        return "n/a"
    return "PASS" if speed.median >= least else "OPEN"


def brief(speed: Ratio) -> str:
    """A ratio for a narrow column; the JSON record also has the spread of a ratio that is n/a."""
    return str(speed) if speed.meaningful else "n/a"


def judge(target: Target, timings: Mapping[str, Timing]) -> dict[str, object]:
    """One target against the timings of one race: its verdict, a line of text and the figures behind it."""
    if missing := [name for name in (target.who, target.against) if name not in timings]:
        return {"verdict": "n/a", "line": f"n/a   {' and '.join(missing)} did not take part"}
    speed = ratio(timings[target.against], timings[target.who])
    answer = verdict(speed, target.least)
    line = f"{answer:4}  {target.who} against {target.against}: {speed} (at least {target.least:g}x)"
    return {"verdict": answer, "line": line, "speed": speed.as_dict(), "least": target.least}


def race_result(
    group: str,
    title: str,
    case: tuple[int, ...],
    timings: Mapping[str, Timing],
    targets: Sequence[Target],
    unavailable: Sequence[Unavailable] = (),
) -> Result:
    """All contenders with their speed relative to the baselines. case: I, H, L and more numbers that name it."""
    baselines = [name for name in BASELINES if name in timings]
    rows = []
    for name, timing in timings.items():
        quartiles = f"{format_seconds(timing.p25)} to {format_seconds(timing.p75)}"
        speeds = [brief(ratio(timings[base], timing)) for base in baselines]
        rows.append([name, format_seconds(timing.median), quartiles, *speeds])
    header = [group, "median", "quartiles", *(f"against {name}" for name in baselines)]
    judged = [judge(target, timings) for target in targets if not target.widths or case[1] in target.widths]
    notes = [f"unavailable: {one.name} ({one.reason})" for one in unavailable]
    text = "\n".join([table(title, header, rows), *(str(one["line"]) for one in judged), *notes])
    return Result(record(group, str(case), timings, judged), text)


def record(
    group: str, case: str, timings: Mapping[str, Timing], targets: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """The JSON form of a race; every target has at least a 'verdict'."""
    seconds = {name: timing.as_dict() for name, timing in timings.items()}
    return {"group": group, "case": case, "seconds": seconds, "targets": list(targets)}
