"""Quality against time, per model, with everyone on it."""

from eval.report import plots

from .. import page, words
from ..races import BAND, STEP, WHOLE, Race, in_mode, races
from ..records import Results

TITLE = "Quality against time"


def build(results: Results) -> page.Section:
    found = races(results)
    body = [
        page.paragraph(
            "A runtime that breaks the model is fast for nothing. Every contender therefore has two coordinates on "
            "every model: the time it takes, and the share of the task's quality that it loses against torch fp32. "
            f"Inside the shaded band at most {BAND:.0%} is lost. Only contenders of equal quality are compared for "
            "speed: those in the band, or one decision beside it where a metric knows no smaller step. A hollow marker "
            "is not equal."
        )
    ]
    if not results.of("frontier"):
        body.append(page.missing("frontier"))
    for mode in (WHOLE, STEP):
        some = [race for race in in_mode(found, mode) if any(r.drawable for r in race.runners)]
        if some:
            body += [f"<h3>{mode.capitalize()}, batch 1</h3>", _figure(some), page.details("As a table", _table(some))]
    if rows := [[race.model, name, why] for race in in_mode(found, WHOLE) for name, why in race.absent.items()]:
        caption = "Contenders that could not be built, computed something else, or were too slow to judge."
        body.append(
            page.details(
                "Who took no part, and why", page.table(["model", "contender", "reason"], rows, caption=caption)
            )
        )
    return page.Section("frontier", TITLE, tuple(body))


def _figure(found: list[Race]) -> str:
    left_out = sum(not r.drawable for race in found for r in race.runners) + sum(len(race.absent) for race in found)
    return page.figure(
        [(_alt(race), _draw(race)) for race in found],
        caption="Up and to the left is better. Circles are float32, squares bf16, triangles int8, diamonds skip at run "
        "time; blue is this project, named where no other variant of it is both as fast and as good. Lines beside a "
        "marker reach from the first to the third quartile of the time. "
        "Look for the leftmost filled marker.",
        records=[race.record for race in found],
        layout="two",
        na=f"{left_out} contenders that took no part or have no figures; see below" if left_out else "",
    )


def _draw(race: Race) -> str:
    points = [
        plots.Point(r.name, r.seconds, r.timing["p25"], r.timing["p75"], r.lost, r.equal)
        for r in race.runners
        if r.drawable and r.lost is not None
    ]
    return plots.frontier(points, band=BAND, title=race.model, quality=race.metric)


def _alt(race: Race) -> str:
    told = f"{race.model}, {race.mode}: {race.metric} lost over time for {len(race.runners)} contenders."
    mine, peer = race.mine, race.peer
    if mine and peer:
        told += (
            f" At equal quality: {mine.name} {words.seconds(mine.seconds)}, {peer.name} {words.seconds(peer.seconds)}."
        )
    return told


def _table(found: list[Race]) -> str:
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
    return page.table(header, rows, caption=f"All contenders, fastest first; {found[0].mode}, batch 1.")
