"""The speaker encoder in detail: the quality that every runtime keeps, and its speed."""

from .. import words
from ..blocks import Block, Section, Table, table
from ..records import Record, Results

GROUPS = {"window": "mean", "step": "stream"}  # group -> the cosine that belongs to its timing
TITLES = {"window": "A window of 160 frames in one call", "step": "One streaming step"}


def _draw(results: Results) -> list[Block]:
    return [block for r in results.of("quality") for block in (_table(r), _targets(r))]


SECTION = Section(
    "quality",
    "Quality and speed of the speaker encoder",
    "A pretrained speaker encoder (3 x 256) on real speech. Quality is the cosine of a window's embedding with the one "
    "that torch computes in fp32, on held-out speakers; batch 1. Activity is the share of the columns that were "
    "computed.",
    ("quality",),
    _draw,
)


def _table(r: Record) -> Table:
    key = GROUPS[r["group"]]
    rows = []
    for name, timing in sorted(r["seconds"].items(), key=lambda item: float(item[1]["median"])):
        quality = r["quality"][name]
        ours = quality["activity"] is not None
        rows.append(
            [
                f"*{name}" if ours else name,
                words.number(quality[key]),
                words.number(quality["worst"]),
                words.percent(quality["activity"]) if ours else "",
                words.seconds(timing["median"]),
                f"{words.seconds(timing.get('p25'))} to {words.seconds(timing.get('p75'))}",
                words.times(words.speed(r["seconds"].get("torch"), timing)),
            ]
        )
    header = ["contender", "cosine", "worst window", "activity", "median time", "quartiles", "against torch"]
    return table(header, rows, caption=f"{TITLES[r['group']]}; fastest first.", records=[r])


def _targets(r: Record) -> Table:
    rows = []
    for one in r["targets"]:
        said = one["line"].removeprefix(one["verdict"]).strip()
        rows.append([said, one["verdict"]])
    caption = f"Targets among contenders with a mean cosine of at least {r['bar']:g}."
    return table(["target", "verdict"], rows, caption=caption, records=[r])
