"""What exported C must reach on a Cortex-M, and whether it does."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

OURS = "adaptive-lstm"
OF_BEST, ABOVE_SHARE = 0.7, 0.12  # of the instructions of the best rival; instructions above the share of columns
STACK, CODE = 2048, 12 * 1024  # bytes

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """One goal of a model on a processor, in int8.

    Args:
        reached, allowed: shares or bytes.
        rival: the one with the fewest instructions; None: it is not about rivals.
    """

    group: str
    processor: str
    goal: str
    reached: float
    allowed: float
    rival: str | None = None

    @property
    def verdict(self) -> str:
        return "PASS" if self.reached <= self.allowed else "MISS"

    @property
    def told(self) -> str:
        """What was reached and what is allowed."""
        one = ",.0f" if self.allowed > 1 else ".3f"
        return f"{self.reached:{one}} of {self.allowed:{one}}"


def judge(records: Iterable[Record]) -> Iterator[Judged]:
    """Every goal that the records can tell, model by model and processor by processor."""

    def place(record: Record) -> tuple[str, str]:
        return record["group"], record["processor"]

    order = list(dict.fromkeys(map(place, records := list(records))))
    for (group, processor), some in groupby(sorted(records, key=lambda r: order.index(place(r))), place):
        yield from _judge(group, processor, [r for r in some if r["precision"] == "int8"])


def _judge(group: str, processor: str, records: list[Record]) -> Iterator[Judged]:
    ours = [r for r in records if r["who"] == OURS]
    dense = next((r for r in ours if r["wanted"] == 1), None)
    if dense is None:
        return
    best = min((r for r in records if r["who"] != OURS), key=lambda r: r["instructions"], default=None)
    if best is not None:
        share = dense["instructions"] / best["instructions"]
        yield Judged(group, processor, "instructions, of the best rival's", share, OF_BEST, best["who"])
    for r in ours:
        if r is not dense:
            share = r["instructions"] / dense["instructions"]
            told = f"instructions at {r['activity']:.0%}, of those of all columns"
            yield Judged(group, processor, told, share, r["activity"] + ABOVE_SHARE)
    yield Judged(group, processor, "RAM beyond the state", max(r["stack"] for r in ours), STACK)
    yield Judged(group, processor, "bytes of code", max(r["code"] for r in ours), CODE)
