"""Numbers as text. Those that were not measured, or must not be quoted, are "n/a" everywhere."""

import math
from collections.abc import Mapping
from typing import Any

from adaptive_lstm.bench import MAX_SPREAD, MIN_ROUNDS, format_seconds

NA = "n/a"


def usable(value: object) -> bool:
    """Whether it is a finite number: null, NaN and infinity are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def seconds(value: Any) -> str:
    """With the unit that fits it: '7.9 µs'."""
    return format_seconds(value).replace(" us", " µs") if usable(value) else NA


def times(value: Any) -> str:
    """A ratio of speeds: '2.31×', '48×'."""
    if not usable(value):
        return NA
    return f"{value:.2f}×" if abs(value) < 10 else f"{value:.0f}×"


def percent(value: Any, digits: int = 0) -> str:
    return f"{value:.{digits}%}" if usable(value) else NA


def number(value: Any, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if usable(value) else NA


def size(value: Any) -> str:
    """Bytes in decimal units."""
    if not usable(value):
        return NA
    unit, word = next((u for u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if abs(value) >= u[0]), (1, "B"))
    return f"{value / unit:.3g} {word}"


def quiet(timing: Mapping[str, Any] | None) -> bool:
    """Whether a timing's quartiles are near enough, and its rounds enough, to divide by it."""
    if timing is None or not all(usable(timing.get(key)) for key in ("median", "p25", "p75")):
        return False
    return timing.get("rounds", MIN_ROUNDS) >= MIN_ROUNDS and _spread(timing) <= MAX_SPREAD


def _spread(timing: Mapping[str, Any]) -> float:
    return float((timing["p75"] - timing["p25"]) / timing["median"]) if timing["median"] else math.inf


def speed(slow: Mapping[str, Any] | None, fast: Mapping[str, Any] | None) -> float | None:
    """Median of ``slow`` over median of ``fast``; None where one of them is not quiet. 2: twice as fast."""
    if slow is None or fast is None or not (quiet(slow) and quiet(fast)):
        return None
    return float(slow["median"] / fast["median"])


def quoted(ratio: Mapping[str, Any] | None) -> float | None:
    """The median of a recorded ratio; None where it is null or its quartiles lie too far apart."""
    return float(ratio["median"]) if ratio is not None and quiet(ratio) else None


def geometric_mean(values: list[float]) -> float | None:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None
