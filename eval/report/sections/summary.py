"""Every model with the fastest contenders of equal quality, and the targets over all of them."""

from collections.abc import Mapping
from typing import Any

from eval.frontier.verdict import means

from .. import words
from ..blocks import Block, Missing, Section, Table, table
from ..races import MODEL, STEP, USES, WHOLE, Race, geometric, in_mode, races
from ..records import Record, Results

HEADER = ["model", "mode", "torch fp32", "best peer at equal quality", "its time", "this project", "its time",
          "against peer", "against torch"]  # fmt: skip
CAPTION = (
    "Fastest contender that keeps the quality of torch fp32, peers and this project; median seconds per call, batch 1. "
    "n/a: none kept the quality, or the times were too noisy to divide."
)


def _draw(results: Results) -> list[Block]:
    records = results.of("frontier")
    headline = _headline(races(results))
    return [headline, _targets(list(records))] if records else [Missing(("frontier",)), headline]


SECTION = Section("summary", "Every model at equal quality", "", (), _draw)


def _headline(found: list[Race]) -> Table:
    rows = [_row(race) for race in found]
    for mode in (WHOLE, MODEL, STEP):
        some = in_mode(found, mode)
        against_peer, count = geometric(some)
        against_torch, _ = geometric(some, torch=True)
        if count > 1:
            rows.append(
                [f"geometric mean of {count}", mode, *[""] * 5, words.times(against_peer), words.times(against_torch)]
            )
    return table(HEADER, rows, caption=CAPTION, records=[race.record for race in found])


def _targets(records: list[Record]) -> Table:
    """The targets over the zoo, and whether they were reached."""
    rows = [
        [USES.get(one["use"], one["use"]), one["goal"], f"{one['n']} {one['over']}", words.times(one["median"]),
         _span(one), words.times(one["least"]), one["verdict"],
         ", ".join(one["left out"])]
        for one in means(records)
    ]  # fmt: skip
    header = ["mode", "against", "geometric mean over", "times as fast", "quartiles", "at least", "verdict", "left out"]
    caption = "Targets of the project, set before measuring. Left out: models whose ratio is n/a."
    return table(header, rows, caption=caption, records=records)


def _span(one: Mapping[str, Any]) -> str:
    return f"{words.times(one['p25'])} to {words.times(one['p75'])}" if words.usable(one["p25"]) else words.NA


def _row(race: Race) -> list[str]:
    dense, peer, mine = race.dense(), race.peer, race.mine
    gain = race.gain
    return [
        race.model,
        race.mode,
        words.seconds(dense.seconds if dense else None),
        peer.name if peer else words.NA,
        words.seconds(peer.seconds if peer else None),
        mine.name if mine else words.NA,
        words.seconds(mine.seconds if mine else None),
        f"*{words.times(gain)}" if gain is not None and gain >= 1 else words.times(gain),
        words.times(race.gain_on_torch),
    ]
