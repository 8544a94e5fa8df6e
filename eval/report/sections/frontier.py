"""Quality against time: every contender on every model."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Details, Figure, Missing, Panel, Section, Table, table
from ..races import BAND, STEP, WHOLE, Race, in_mode, races
from ..records import Results


def _draw(results: Results) -> list[Block]:
    found = races(results)
    blocks: list[Block] = [] if results.of("frontier") else [Missing(("frontier",))]
    if any(_known(found, mode) for mode in (WHOLE, STEP)):
        blocks.append(_figure(found))
    blocks += [
        Details(f"All contenders, {mode}", (_table(some),)) for mode in (WHOLE, STEP) if (some := in_mode(found, mode))
    ]
    whole = in_mode(found, WHOLE)
    if rows := [[race.model, name, why] for race in whole for name, why in race.unavailable.items()]:
        caption = "Contenders that could not be built, computed something else, or were too slow to judge."
        records = [race.record for race in whole]
        left_out = table(["model", "contender", "reason"], rows, caption=caption, records=records)
        blocks.append(Details("Contenders that were left out, and why", (left_out,)))
    return blocks


SECTION = Section(
    "frontier",
    "Quality against time",
    "A fast runtime that breaks the model is useless. Every contender therefore has two coordinates on every "
    "model: its time, and the share of the task's quality that it loses against torch fp32. "
    f"Only contenders of equal quality are compared for speed: those that lose at most {BAND:.0%}, or one decision "
    "more where a metric knows no smaller step. "
    "Variants of this project: `exact` is float32; `int8` has integer weights and activations; `raw`: the matrix that "
    "reads raw features is int8 too; `bytes`: activations fit a byte, `coarse`: they have 64 levels, `fine`: 8191; "
    "`dynamic`: one range per timestep; `mixed`: the most sensitive matrices in bfloat16; `delta`: int8 with delta "
    "columns of that threshold scale; `pruned`: blocks of zeros; `certified`: the policy that `al.calibrate` proved.",
    (),
    _draw,
)


def _figure(found: list[Race]) -> Figure:
    return Figure(
        tuple(_panel(mode, some) for mode in (WHOLE, STEP) if (some := _known(found, mode))),
        "How many times as fast the fastest variant of this project is as the fastest peer, which is named, both at "
        "equal quality; whiskers are quartiles. Right of the dashed line this project is faster.",
        tuple(race.record for race in found),
        layout="two",
        left_out=", ".join(f"{race.model} ({race.mode})" for race in found if race.gain is None),
    )


def _known(found: list[Race], mode: str) -> list[Race]:
    some = [race for race in in_mode(found, mode) if race.gain is not None and race.peer is not None]
    return sorted(some, key=lambda race: -(race.gain or 0.0))


def _panel(mode: str, found: list[Race]) -> Panel:
    marks = [(race.model, _mark(race)) for race in found]
    alt = f"Speed against the best peer, {mode}: " + "; ".join(f"{label} {mark.words}" for label, mark in marks)
    draw = partial(plots.dots, marks, title=f"{mode.capitalize()}, batch 1", unit="times as fast", line=1.0, width=4.6)
    return Panel(alt, draw)


def _mark(race: Race) -> plots.Mark:
    gain, peer = race.gain, race.peer
    assert gain is not None
    assert peer is not None
    low, high = race.gain_quartiles or (gain, gain)
    return plots.Mark("", gain, low, high, f"{words.times(gain)} {peer.name}")


def _table(found: list[Race]) -> Table:
    header = ["model", "contender", "metric", "quality", "lost", "median time", "quartiles", "equal quality"]
    rows = [
        [
            race.model,
            f"*{r.name}" if r.ours else r.name,
            race.metric,
            words.number(r.quality),
            words.percent(r.lost, 2),
            words.seconds(r.seconds),
            f"{words.seconds(r.timing.get('p25'))} to {words.seconds(r.timing.get('p75'))}",
            "yes" if r.equal else "no",
        ]
        for race in found
        for r in sorted(race.runners, key=lambda r: r.seconds)
    ]
    caption = f"All contenders, fastest first; {found[0].mode}, batch 1."
    return table(header, rows, caption=caption, records=[race.record for race in found])
