"""Checks of the records that the scripts in ``eval/`` make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
Run = Callable[..., list[Record]]


def assert_quantiles(seconds: Record) -> None:
    """A timing in a record: positive, in order, of several rounds."""
    order = [seconds[name] for name in ("p05", "p25", "median", "p75", "p95", "p99")]
    assert order == sorted(order)
    assert order[0] > 0
    assert seconds["rounds"] >= 2


def of(found: list[Record], group: str) -> dict[str, Record]:
    """The records of a group by their case."""
    return {record["case"]: record for record in found if record["group"] == group}
