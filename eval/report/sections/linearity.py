"""Whether skipped work becomes saved time, mechanism by mechanism."""

from eval.linearity import INERT, MARGIN

from .. import words
from ..blocks import Block, Paragraph, Section, Table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("linearity")
    cases = dict.fromkeys(r["case"] for r in records)
    return [Paragraph(_verdict(records)), *(_table(tuple(r for r in records if r["case"] == case)) for case in cases)]


SECTION = Section(
    "linearity",
    "Does the time fall in line with the work?",
    "int8, random weights, one sequence in one call. Of every mechanism: the share of the multiply-accumulates that it "
    "leaves to do, and the time as a share of that with nothing skipped. Allowed is a call of one timestep, and of the "
    f"rest the share of the work and {MARGIN:.0%} more; a policy that never acts may take {INERT:.2f} times as long as "
    "nothing skipped.",
    ("linearity",),
    _draw,
)


def _verdict(records: tuple[Record, ...]) -> str:
    judged = [(r, j) for r in records for j in r["judged"] if j["verdict"] != "n/a"]
    inert = [j for _, j in judged if j["who"] == "inert"]
    skipping = [j for _, j in judged if j["who"] != "inert"]
    kept = [sum(j["verdict"] == "PASS" for j in some) for some in (skipping, inert)]
    return (
        f"{kept[0]} of {len(skipping)} settings that skip keep the line, and {kept[1]} of {len(inert)} that never act."
    )


def _table(records: tuple[Record, ...]) -> Table:
    rows = [
        [r["title"], j["who"], f"{j['share']:.3f}", _took(j), f"{j['allowed']:.3f}", j["verdict"]]
        for r in records
        for j in r["judged"]
    ]
    dense = words.seconds(records[0]["dense"]["median"])
    caption = f"(I, H, L), timesteps: {records[0]['case']}; {dense} with nothing skipped."
    header = ["mechanism", "setting", "share of the work", "share of the time", "allowed", ""]
    return table(header, rows, caption=caption, records=records)


def _took(j: Record) -> str:
    took = j["took"]
    spread = f"({took['p25']:.3f} to {took['p75']:.3f})"
    return f"n/a {spread}" if took["median"] is None else f"{took['median']:.3f} {spread}"
