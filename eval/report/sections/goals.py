"""Goals that records are judged by, as tables: what was reached, what must be, and the verdict."""

from collections.abc import Iterable, Sequence

from adaptive_lstm.bench import Ratio
from eval.savings import LEAST_OF_STREAMS, REAL, REAL_LEAST, STREAMED, bound
from eval.shared.targets import verdict as judged
from eval.zoo import NAMES

from .. import words
from ..blocks import Block, Paragraph, Table, table
from ..records import Record

Row = tuple[str, str, str, str, str]
HEADER = ["model", "goal", "reached", "must be", "verdict"]


def of_savings(records: Sequence[Record], use: str) -> list[Block]:
    """The goals of calibrations for one use, and of all of them together; nothing if they have none."""
    rows = [_row(r["group"], goal) for r in records for goal in r.get("goals", ())]
    if not rows:
        return []
    gains = {
        r["group"]: goal["got"]
        for r in records
        for goal in r.get("goals", ())
        if goal["goal"].startswith("times as fast")
    }
    known = {name: got for name, got in gains.items() if got is not None}
    rows += _of_streams(known) if use == "stream" else _of_real_models(known)
    unclear = [name for name in gains if name not in known]
    wanted = [name for name in NAMES if use != "stream" or name.startswith(STREAMED)]
    missing = [name for name in wanted if name not in {r["group"] for r in records}]
    blocks: list[Block] = [
        table(HEADER, rows, caption="The goals. Times as fast: against the same int8 model with nothing skipped.",
              records=records)
    ]  # fmt: skip
    if unclear:
        blocks.append(Paragraph(f"Too noisy to tell: {', '.join(unclear)}.", "warning"))
    if missing:
        blocks.append(
            Paragraph(
                f"Without a record: {', '.join(missing)}: there are no sequences to calibrate on, or nobody fetched "
                "them.",
                "warning",
            )
        )
    return blocks


def _row(who: str, goal: Record) -> Row:
    return who, goal["goal"], words.number(goal["got"]), bound(goal), _verdict(goal["verdict"])


def _verdict(told: str) -> str:
    """A miss must not be overlooked."""
    return "*MISS" if told == "MISS" else told


def _of_streams(gains: dict[str, float]) -> list[Row]:
    mean = words.geometric_mean(list(gains.values()))
    return [
        _row(f"all {len(gains)} streams", {"goal": "geometric mean, times as fast", "got": mean,
                                           "least": LEAST_OF_STREAMS, "verdict": _reached(mean, LEAST_OF_STREAMS)})
    ]  # fmt: skip


def _of_real_models(gains: dict[str, float]) -> list[Row]:
    """Of the models for which no figure of their own is asked: how many of them reach one."""
    some = {name: got for name, got in gains.items() if name.startswith(tuple(REAL))}
    best: dict[str, float] = {}
    for name, got in some.items():
        family = next(one for one in REAL if name.startswith(one))
        best[family] = max(got, best.get(family, 0.0))
    reached = float(sum(got >= REAL_LEAST for got in best.values()))
    goal = {"goal": f"how many are {REAL_LEAST:g} times as fast", "got": reached, "least": 3.0}
    return [_row(", ".join(REAL), goal | {"verdict": _reached(reached, 3.0)})]


def _reached(value: float | None, least: float) -> str:
    return words.NA if value is None else "PASS" if value >= least else "MISS"


def of_cold_steps(shapes: Iterable[tuple[str, Sequence[Record]]]) -> Table | None:
    """The goals of single steps after other work has taken the caches, stack by stack; None if none is of these."""
    rows, used = list[Row](), list[Record]()
    for shape, records in shapes:
        found = {r["contender"]: r for r in records}
        if "adaptive int8" not in found:
            continue
        before = len(rows)
        rows += [row for goal in COLD if (row := _cold(shape, found, *goal)) is not None]
        used += records if len(rows) > before else []
    caption = (
        "The goals of a cold step. OPEN: the quartiles lie on both sides of the goal, and the median misses it. Delta "
        "sends about this share of the columns."
    )
    return table(["stack (I, H, L)", *HEADER[1:]], rows, caption=caption, records=used) if rows else None


ORT_LEAST = {256: 1.5, 512: 1.3}  # times as fast as ORT int8, by hidden units
SKIPPING = 0.15  # of the time of a cold dense step, which Delta may take beyond its activity
AHEAD = 0.6  # of a cold step, which may be left after ahead()
COLD = (
    ("adaptive int8", "ORT int8", None),
    ("int8 + delta 50%", "adaptive int8", 0.5 + SKIPPING),
    ("int8 + delta 20%", "adaptive int8", 0.2 + SKIPPING),
    ("adaptive int8, ahead", "adaptive int8", AHEAD),
)  # who, against whom, and the largest share of its time; None: the least speed by ORT_LEAST


def _cold(shape: str, found: dict[str, Record], who: str, against: str, most: float | None) -> Row | None:
    """One goal on one stack; None if it does not apply, or one of both did not take part."""
    speed = found.get(who, {}).get("speed", {}).get(against)
    hidden = found["adaptive int8"]["H"]
    least = ORT_LEAST.get(hidden) if most is None else 1 / most
    if least is None or speed is None or not words.usable(speed["median"]):
        return None
    told = judged(Ratio(speed["median"], speed["p25"], speed["p75"], speed["rounds"]), least)
    got = speed["median"] if most is None else 1 / speed["median"]
    name = f"{who}, times as fast as {against}" if most is None else f"{who}, share of the time of {against}"
    asked = f"at least {least:.2f}" if most is None else f"at most {most:.2f}"
    return shape, name, words.number(got if told != words.NA else None), asked, _verdict(told)
