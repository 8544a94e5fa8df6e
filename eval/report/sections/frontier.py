"""Quality against time: every contender on every model."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Details, Figure, Heading, Missing, Panel, Section, Table, as_table, table
from ..races import BAND, STEP, WHOLE, Race, in_mode, races
from ..records import Results


def _draw(results: Results) -> list[Block]:
    found = races(results)
    blocks: list[Block] = [] if results.of("frontier") else [Missing(("frontier",))]
    for mode in (WHOLE, STEP):
        some = [race for race in in_mode(found, mode) if any(r.drawable for r in race.runners)]
        if some:
            blocks += [Heading(f"{mode.capitalize()}, batch 1"), _figure(some), as_table(_table(some))]
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
    f"Inside the shaded band at most {BAND:.0%} is lost. Only contenders of equal quality are compared for speed: "
    "those in the band, or one decision beside it where a metric knows no smaller step. A hollow marker is not equal. "
    "Variants of this project: `exact` is float32; `int8` has integer weights and activations; `raw`: the matrix that "
    "reads raw features is int8 too; `bytes`: activations fit a byte, `fine`: they have 8191 levels; `dynamic`: one "
    "range per timestep; `mixed`: the most sensitive matrices in bfloat16; `delta`: int8 with delta columns of that "
    "threshold scale; `pruned`: blocks of zeros; `certified`: the policy that `al.calibrate` proved.",
    (),
    _draw,
)


def _figure(found: list[Race]) -> Figure:
    left_out = sum(not r.drawable for race in found for r in race.runners) + sum(
        len(race.unavailable) for race in found
    )
    return Figure(
        tuple(Panel(_alt(race), partial(_plot, race)) for race in found),
        "Up and to the left is better. Circles are float32, squares bf16, triangles int8, diamonds skip at run time; "
        "blue is this project, named where no other variant of it is both as fast and as good. Lines beside a marker "
        "reach from the first to the third quartile of the time. Look for the leftmost filled marker.",
        tuple(race.record for race in found),
        layout="two",
        left_out=f"{left_out} contenders that took no part or have no figures; see below" if left_out else "",
    )


def _plot(race: Race) -> str:
    points = [
        plots.Point(r.name, r.seconds, r.timing["p25"], r.timing["p75"], r.lost, r.equal)
        for r in race.runners
        if r.drawable and r.lost is not None
    ]
    return plots.frontier(points, band=BAND, title=race.model, quality=race.metric)


def _alt(race: Race) -> str:
    alt = f"{race.model}, {race.mode}: {race.metric} lost over time for {len(race.runners)} contenders."
    mine, peer = race.mine, race.peer
    if mine and peer:
        alt += (
            f" At equal quality: {mine.name} {words.seconds(mine.seconds)}, {peer.name} {words.seconds(peer.seconds)}."
        )
    return alt


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
