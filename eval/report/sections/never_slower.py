"""Whether an exact LSTM is ever slower than ``nn.LSTM``."""

from eval.never_slower import BAR, FIRST

from .. import words
from ..blocks import Block, Paragraph, Section, Table, table
from ..records import Record, Results


def _draw(results: Results) -> list[Block]:
    records = results.of("never_slower")
    return [Paragraph(_verdict(records)), _table(records)]


SECTION = Section(
    "never-slower",
    "Is it ever slower than torch?",
    "Random weights, nothing skipped or quantized: the time of the adapted LSTM over that of nn.LSTM on the same "
    f"inputs. First: the first {FIRST} calls of a batch size and length that no call had before, in which the two take "
    f"turns. Then: calls once that is settled. The bar is {BAR:.2f}, which is 0.97 times as fast.",
    ("never_slower",),
    _draw,
)


def _verdict(records: tuple[Record, ...]) -> str:
    told = [r for r in records if r["then"]["median"] is not None]
    slow = [r for r in told if r["then"]["median"] > BAR]
    clearly = [r for r in slow if r["then"]["p25"] > BAR]
    worst = max(told, key=lambda r: r["then"]["median"], default=None)
    text = (
        f"{len(slow)} of {len(told)} cells with a quotable ratio lie above {BAR:.2f}, {len(clearly)} of them by their "
    )
    text += "lower quartile."
    if worst is not None:
        text += f" The slowest: {worst['case']}, {worst['then']['median']:.2f}."
    return text


def _table(records: tuple[Record, ...]) -> Table:
    rows = [
        [r["case"], f"{r['first']:.2f}", _then(r), r["route"], words.seconds(r["torch"]["median"])] for r in records
    ]
    header = ["LSTM (I, H, L), batch, timesteps", f"first {FIRST} calls", "then", "served by", "nn.LSTM"]
    return table(header, rows, caption="Time of the adapted LSTM over that of nn.LSTM; below 1 it is faster.",
                 records=records)  # fmt: skip


def _then(r: Record) -> str:
    then = r["then"]
    spread = f"({then['p25']:.2f} to {then['p75']:.2f})"
    return f"n/a {spread}" if then["median"] is None else f"{then['median']:.2f} {spread}"
