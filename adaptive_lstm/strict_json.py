"""JSON from a file that may be hostile: a bounded number of values, a bounded depth, and no name twice in an object."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

MAX_DEPTH = 32


def loads(text: str, most: int) -> Any:
    """What the text says.

    Args:
        text: JSON.
        most: how many values it may hold, about. Commas and brackets are counted, within strings too, before anything
            is built.

    Raises:
        ValueError: no JSON, more values, nested deeper than ``MAX_DEPTH``, or a name twice in one object.
    """
    if sum(map(text.count, ",[{")) > most:
        raise ValueError(f"got more than {most:,} values in JSON")
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError(f"got JSON nested deeper than {MAX_DEPTH} levels") from None
    level = [found]
    for _ in range(MAX_DEPTH + 1):
        containers = [one for one in level if isinstance(one, dict | list)]
        if not containers:
            return found
        level = [value for one in containers for value in (one.values() if isinstance(one, dict) else one)]
    raise ValueError(f"got JSON nested deeper than {MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"got the name {twice!r:.100} twice in one JSON object")
    return found
