"""Changes to what JSON and arrays say: values of other types and sizes, names lost, added or said twice."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from typing import Any

import numpy as np


def _nested(depth: int) -> Any:
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 2**31, 2**40, -(2**63), 2**64, 10**400, 1e300, math.nan, math.inf),
    *("", "inf", "array", "Dense", "Delta", "Combined", "int8", "fp32", "F32", "x" * 9999, "h", "\0", "0.policy"),
    *([], {}, [[]], [0], [1, 2], {"kind": "Dense"}, {"kind": "Combined", "policies": []}, [None] * 99, _nested(50)),
    *([0.1] * 5000, "\udcff", [0, 2**62], [2**63, 2**63], [-1, -1], {"a": {"a": {"a": 1}}}),
)
_TYPES = ("float64", "float16", "uint8", "int32", "bool", "int64")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in it with every key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def restate(found: Any, choice: random.Random) -> None:
    """Change one value, or one name, somewhere inside."""
    known = places(found)
    if not known:
        return
    numbers = [(owner, key) for owner, key in known if type(owner[key]) in (int, float)]
    way = choice.randrange(8)
    (owner, key), (other, name) = choice.choice(numbers if numbers and way > 5 else known), choice.choice(known)
    if way == 0:
        del owner[key]
    elif way == 1:
        owner[key] = copy.deepcopy(other[name])
    elif way > 5 and numbers:
        owner[key] = choice.choice((-1, 1, 1, 1)) * owner[key] + choice.choice((-1, 0, 1, 1, 0.5, 2, 1000))
    elif way == 2 and isinstance(owner, dict):
        owner[choice.choice(("", "kind", "x", "h", "extra", f"{key}x"))] = owner.pop(key)
    else:
        owner[key] = copy.deepcopy(choice.choice(JUNK))


def say_twice(text: str, choice: random.Random) -> str:
    """Repeat a name of an object with another value; or leave JSON altogether."""
    names = list(re.finditer(r'"[^"\\]*":', text))
    if not names:
        return text
    one = choice.choice(names)
    value = choice.choice(("null", "0", "{}", "[]", '""', "NaN", "1e400", "-Infinity", "[" * 2000, "0x10", "'a'"))
    return f"{text[: one.start()]}{one.group()}{value},{text[one.start() :]}"


def reshape(arrays: dict[str, np.ndarray], choice: random.Random) -> None:
    """Change one array, or its name."""
    if not arrays:
        return
    name, other = choice.choice(list(arrays)), choice.choice(list(arrays))
    array = np.atleast_1d(arrays[name])
    changed = array.copy()
    if array.size:
        value = choice.choice((0, 1, 255) if array.dtype == "uint8" else (0, -1, 1e38, math.inf, math.nan))
        with np.errstate(all="ignore"):
            changed.reshape(-1)[choice.randrange(array.size)] = np.float64(value).astype(array.dtype)
    with np.errstate(all="ignore"):
        other_type = array.astype(choice.choice(_TYPES))
    choices: tuple[np.ndarray, ...] = (
        *(changed, changed, array.reshape(-1), array[:-1], array[:0], array.T, np.zeros_like(array), arrays[other]),
        *(other_type, np.concatenate([array, array]), array[None], np.array(1.0, np.float32)),
    )
    picked = choice.randrange(len(choices) + 3)
    if picked < len(choices):
        arrays[name] = choices[picked]
    elif picked == len(choices):
        arrays[name], arrays[other] = arrays[other], arrays[name]
    elif picked == len(choices) + 1:
        del arrays[name]
    else:
        moved = arrays.pop(name)
        arrays[choice.choice(("extra", name + ".kept", name.removesuffix(".kept")))] = moved


def dumps(value: Any) -> str:
    """JSON, also of what JSON cannot say."""
    return json.dumps(value, allow_nan=True)
