"""From times and qualities to verdicts: the best at equal quality, and its gain, for one model and over the zoo.

A verdict is only given where the quartiles of the paired ratios lie on one side; else it is "too close", because a
second run might say the opposite. A ratio whose spread makes it meaningless is "n/a": means leave it out and name it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from adaptive_lstm.bench import MIN_ROUNDS, Timing, format_seconds, ratio
from eval.frontier.field import TORCH, Entry
from eval.frontier.quality import Quality
from eval.shared import common

FASTER, SLOWER, CLOSE, NONE = "faster", "slower", "too close", "n/a"
# Use -> goal: how many times as fast as the best peer, and as torch, in the geometric mean over the zoo.
TARGETS = {"whole": {"best peer": 4.0, "torch": 9.0}, "step": {"best peer": 10.0, "torch": 25.0}}

Record = Mapping[str, Any]


def verdict(
    timings: Mapping[str, Timing], entries: Iterable[Entry], qualities: Mapping[str, Quality], *, steps: bool
) -> dict[str, Any]:
    """The best peer and the best of ours among those that keep the quality, and their ratio; None: none of ours does.

    A contender without a time, because it does not fit the use, does not count. steps: of a stream; an int8 peer then
    also counts if step by step it is no farther from the original than the farthest contender that keeps the quality.
    """
    reach = max((q.distance for name, q in qualities.items() if q.kept and name in timings), default=0.0)

    def counts(name: str) -> bool:
        quality = qualities.get(name)
        if quality is None or name not in timings:
            return False
        near = steps and quality.distance_steps is not None and quality.distance_steps <= reach
        return quality.kept or near

    able = [entry for entry in entries if counts(entry.name)]
    theirs, ours = (_fastest([e.name for e in able if e.peer is peer], timings) for peer in (True, False))
    found: dict[str, Any] = {"peer": theirs, "ours": ours}
    if theirs is None or ours is None:
        return {**found, "best peer": None, "torch": None, "verdict": NONE}
    versus = {goal: ratio(timings[base], timings[ours]) for goal, base in (("best peer", theirs), ("torch", TORCH))}
    plain = {goal: one.as_dict() for goal, one in versus.items()}
    return {**found, **plain, "verdict": side(plain["best peer"], 1.0, (FASTER, SLOWER))}


def _fastest(names: Sequence[str], timings: Mapping[str, Timing]) -> str | None:
    return min(names, key=lambda name: timings[name].median, default=None)


def side(found: Mapping[str, Any], bar: float, said: tuple[str, str]) -> str:
    """The side of a bar that the quartiles of a ratio lie on; n/a where they lie far apart and on both sides."""
    if found["p25"] is None or found.get("rounds", MIN_ROUNDS) < MIN_ROUNDS:
        return NONE
    if found["p25"] >= bar or found["p75"] < bar:
        return said[0] if found["p25"] >= bar else said[1]
    return NONE if found["median"] is None else CLOSE


def means(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Geometric means over the zoo of every use and goal, over models and over families, held against the targets."""
    rows = []
    for use, targets in TARGETS.items():
        for goal, least in targets.items():
            ratios = {r["group"]: one for r in records if (one := _ratio(r, use, goal)) is not None}
            raced = [r["group"] for r in records if use in r["verdicts"]]
            for unit, name_of in (("models", _itself), ("families", _family)):
                mean = _geometric(ratios, name_of)
                judged = side(mean, least, ("PASS", "MISS"))
                left_out = [name for name in raced if name not in ratios]
                rows.append({"use": use, "goal": goal, "least": least, "over": unit, **mean, "verdict": judged})
                rows[-1]["left out"] = left_out
    return rows


def _ratio(record: Record, use: str, goal: str) -> dict[str, Any] | None:
    found = record["verdicts"].get(use, {}).get(goal)
    return None if found is None or found["median"] is None else found


def _geometric(ratios: Mapping[str, Mapping[str, float]], name_of: Callable[[str], str]) -> dict[str, Any]:
    """Geometric means of medians and of quartiles; models of the same name count as one, by their own mean."""
    groups: dict[str, list[str]] = {}
    for name in ratios:
        groups.setdefault(name_of(name), []).append(name)

    def mean(key: str) -> float | None:
        logs = [math.fsum(math.log(ratios[n][key]) for n in names) / len(names) for names in groups.values()]
        return math.exp(math.fsum(logs) / len(logs)) if logs else None

    return {"median": mean("median"), "p25": mean("p25"), "p75": mean("p75"), "n": len(groups)}


def _itself(name: str) -> str:
    return name


def _family(name: str) -> str:
    return name.partition("-")[0]


# ---------------------------------------------------------------------------------------------------------- tables


def as_text(records: Sequence[Record]) -> str:
    """Everything as text: a row per model and use, losses included, then the means."""
    header = ["model", "use", "best peer", "takes", "best of ours", "takes", "/ peer", "/ torch", "verdict"]
    rows = [_row(record, use, found) for record in records for use, found in record["verdicts"].items()]
    lines = [common.table("the fastest at equal quality, batch 1", header, rows)]
    header = ["geometric mean", "over", "median", "quartiles", "at least", "verdict"]
    lines.append(common.table("over the zoo", header, [_mean_row(one) for one in means(records)]))
    lines += [f"not in the mean of {one}" for one in _left_out(records)]
    return "\n".join(lines)


def _row(record: Record, use: str, found: Mapping[str, Any]) -> list[object]:
    times = record["seconds"][use]
    row: list[object] = [record["group"], use]
    for who in ("peer", "ours"):
        row += [found[who] or "none", format_seconds(times[found[who]]["median"]) if found[who] else ""]
    return [*row, *(_shown(found[goal]) for goal in ("best peer", "torch")), found["verdict"]]


def _shown(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NONE
    spread = f"{found['p25']:.2f} to {found['p75']:.2f}"
    return f"{NONE} ({spread})" if found["median"] is None else f"{found['median']:.2f}x ({spread})"


def _mean_row(one: Mapping[str, Any]) -> list[object]:
    name, over = f"{one['use']}, {one['goal']} / ours", f"{one['n']} {one['over']}"
    if one["median"] is None:
        return [name, over, NONE, "", f"{one['least']:g}x", NONE]
    return [
        name, over, f"{one['median']:.2f}x", f"{one['p25']:.2f} to {one['p75']:.2f}", f"{one['least']:g}x",
        one["verdict"],
    ]  # fmt: skip


def _left_out(records: Sequence[Record]) -> list[str]:
    found = {f"{one['use']}, {one['goal']}": one["left out"] for one in means(records) if one["left out"]}
    return [f"{what}: {', '.join(names)}" for what, names in found.items()]


def detail(record: Record) -> str:
    """One model: every contender with its quality and its times, and those left out."""
    uses = list(record["seconds"])
    header = ["contender", "equal quality", *record["dense"], "distance", *uses]
    rows = []
    for name, quality in record["quality"].items():
        figures = [f"{quality['figures'][figure]:.4g}" for figure in record["dense"]]
        times = [
            format_seconds(found[name]["median"]) if name in (found := record["seconds"][use]) else "" for use in uses
        ]
        rows.append([name, "yes" if quality["kept"] else "no", *figures, f"{quality['distance']:.4f}", *times])
    part = f", every {record['every']}. labelled item" if record["every"] > 1 else ""
    lines = [common.table(f"{record['group']} ({record['distance']}{part})", header, rows)]
    lines += [f"left out: {name} ({reason})" for name, reason in record["unavailable"].items()]
    lines += [f"does not keep the quality: {n} ({q['lost']})" for n, q in record["quality"].items() if not q["kept"]]
    return "\n".join(lines)
