"""The numbers to remember, each from records, and the table behind them."""

from collections.abc import Mapping
from typing import Any

from eval.frontier.verdict import means

from .. import page, words
from ..races import MODEL, STEP, USES, WHOLE, Race, geometric, in_mode, races
from ..records import Record, Results

HEADER = ["model", "mode", "torch fp32", "best peer at equal quality", "its time", "this project", "its time",
          "against peer", "against torch"]  # fmt: skip
PROMISE_HELD = "certificates that fresh data do not contradict"


def build(results: Results) -> page.Section:
    body = [page.cards(_cards(results)), page.table(*headline(results), caption=CAPTION)]
    if records := results.of("frontier"):
        body.append(_targets(list(records)))
    else:
        body.insert(0, page.missing("frontier"))
    return page.Section("summary", "Headline numbers", tuple(body))


CAPTION = (
    "Fastest contender that keeps the quality of torch fp32, peers and this project; median seconds per call, batch 1. "
    "n/a: nobody kept the quality, or the times were too noisy to divide."
)


def headline(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the headline table; also what README shows."""
    found = races(results)
    rows = [_row(race) for race in found]
    for mode in (WHOLE, MODEL, STEP):
        some = in_mode(found, mode)
        against_peer, count = geometric(some)
        against_torch, _ = geometric(some, torch=True)
        if count > 1:
            rows.append(
                [f"geometric mean of {count}", mode, *[""] * 5, words.times(against_peer), words.times(against_torch)]
            )
    return HEADER, rows


def _targets(records: list[Record]) -> str:
    """What was asked of the zoo, and what came of it."""
    rows = [
        [USES.get(one["use"], one["use"]), one["goal"], f"{one['n']} {one['over']}", words.times(one["median"]),
         _span(one), words.times(one["least"]), one["verdict"],
         ", ".join(one["left out"])]
        for one in means(records)
    ]  # fmt: skip
    header = ["mode", "against", "geometric mean over", "times as fast", "quartiles", "at least", "verdict", "left out"]
    return page.table(
        header, rows, caption="Targets of the project, set before measuring. Left out: models whose ratio is n/a."
    )


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


def _cards(results: Results) -> list[tuple[str, str]]:
    found = races(results)
    cards = []
    for mode in (WHOLE, STEP):
        some = in_mode(found, mode)
        for torch, against in ((False, "best peer at equal quality"), (True, "torch fp32")):
            mean, count = geometric(some, torch=torch)
            over = f"geometric mean over {count} models" if count > 1 else "one model" if count else "no usable race"
            cards.append((words.times(mean), f"as fast as {against}, {mode}; {over}"))
    certified = [r for r in results.of("worth") if r.get("certified")]
    if certified:
        kept = sum(r["fresh_at_least"] <= r["max_loss"] for r in certified)
        cards.append((f"{kept} of {len(certified)}", PROMISE_HELD))
    return cards
