"""What a pool of streams costs beside the bare batched step, and whether its time follows the rows that run."""

from eval.pool import MOST, SEATS, SLACK, verdict

from .. import words
from ..blocks import Block, Heading, Section, Table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    ticks, shares = results.of("pool", "tick"), results.of("pool", "certified", "held")
    blocks: list[Block] = []
    if ticks:
        blocks += [Heading("A tick over the bare batched step"), _ticks(ticks)]
    if shares:
        blocks += [Heading("Holding and leaving on real streams"), _shares(shares)]
    return blocks


SECTION = Section(
    "pool",
    "What does a pool of streams cost?",
    "Every stream of a pool has a frame: the time of giving all their frames and of a tick, over the time of one step "
    "of a stream of as many rows. Every other: a pool of twice as many streams, of which half have a frame, drawn anew "
    f"each time. The bar is {MOST:.2f}.",
    ("pool",),
    _draw,
)


def _ticks(records: tuple[Record, ...]) -> Table:
    header = ["stack (I, H, L)", "outputs in an array", "as a dictionary", "every other", "bare step", "verdict"]
    rows = []
    for r in records:
        medians = [r["ratios"][name]["median"] for name in ("arrays", "dictionary", "every other")]
        told = [words.NA if m is None else f"{m:.2f}" for m in medians]
        rows.append([r["case"], *told, words.seconds(r["seconds"]["bare"]["median"]), verdict(r)])
    return table(header, rows, caption="The verdict is of outputs in an array.", records=records)


def _shares(records: tuple[Record, ...]) -> Table:
    header = ["model (int8)", "policy", "share of the work", "share of the time", "frames that ran", "verdict"]
    rows = [
        [
            r["case"],
            r["policy"] if r["certified"] else f"{r['policy']} (not certified)",
            f"{r['work']:.2f}",
            f"{r['time']:.2f} ({r['times'][0]:.2f} to {r['times'][-1]:.2f})",
            words.percent(r["frames"]),
            verdict(r),
        ]
        for r in records
    ]
    caption = (
        f"{SEATS} recordings at a time, each left once its stream is done; shares of the same with nothing skipped. "
        f"The share of the time may exceed that of the work by {SLACK:.2f}."
    )
    return table(header, rows, caption=caption, records=records)
