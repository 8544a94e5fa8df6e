"""One codec for frozen dataclasses: to JSON and named arrays, and back, and to a digest of their contents.

Fields and type hints of a class say how it is written, so a new setting needs no code here. Reading is strict: exactly
the fields of the class, values of exactly the hinted types, finite numbers (or "inf"), at most ``MAX_ITEMS`` entries.
Nothing is ever executed but the constructor of a class that the caller named.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import numbers
import reprlib
import sys
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from .errors import InputError, ModelFileError

MAX_ITEMS = 4096  # entries of a list or an object
MAX_NUMBERS = 2**18  # entries of a row of numbers that is kept as an array
LARGEST = 1.7e308
INLINE = 32  # longer rows of numbers become arrays
ARRAY = "array"  # in the JSON in place of a value that is an array

_NONE: type = type(None)

Written = dict[str, np.ndarray]


class Arrays:
    """The arrays of a file; ``take`` hands out each of them once."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._left = dict(arrays)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, dtype: str, *shape: int | None) -> np.ndarray:
        """The array of this name if it has this dtype and shape; None: any length; no shape at all: any shape.

        Raises:
            ModelFileError: it is missing, or another one.
        """
        array = self._left.pop(name, None)
        expected = f"{dtype} [{', '.join('any' if n is None else str(n) for n in shape)}]" if shape else dtype
        if array is None:
            raise ModelFileError(f"{name}: missing, expected {expected}")
        fits = not shape or (
            array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        )
        if array.dtype != dtype or not fits:
            raise ModelFileError(f"{name}: got {array.dtype} {list(array.shape)}, expected {expected}")
        return array

    def finish(self) -> None:
        """Raise ``ModelFileError`` if an array was never taken."""
        if self._left:
            raise ModelFileError(f"got arrays that nothing refers to: {reprlib.repr(sorted(self._left))}")


# ------------------------------------------------------------------------------------------------------------ writing


def encode(value: object, at: str, arrays: Written) -> Any:
    """A value as JSON can say it; what it holds in arrays is added to ``arrays``, with names that begin with ``at``.

    Raises:
        InputError: it holds NaN, or an object that is no dataclass, mapping, row, array, text or number.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isnan(value) or value == -math.inf:
            raise InputError(f"{at}: got {value}, expected a finite number or infinity")
        return "inf" if math.isinf(value) else value
    if isinstance(value, np.ndarray):
        arrays[at] = _native(value, at)
        return ARRAY
    if isinstance(value, tuple | list):
        if len(value) > INLINE and all(type(v) is float for v in value):
            arrays[at] = np.array(value, np.float64)
            return ARRAY
        return [encode(v, f"{at}.{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): encode(v, f"{at}.{key}", arrays) for key, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name), f"{at}.{f.name}", arrays) for f in _settings(type(value))}
    raise InputError(f"{at}: {type(value).__name__} is Python code, which a file that is never unpickled cannot hold")


def encode_changed(value: Any, at: str, arrays: Written) -> dict[str, Any]:
    """``encode`` of a dataclass without the fields that are at their defaults; ``with_defaults`` puts them back."""
    found, usual = encode(value, at, arrays), _defaults(type(value))
    return {name: one for name, one in found.items() if name not in usual or one != usual[name]}


def _native(array: np.ndarray, at: str) -> np.ndarray:
    """The same numbers in the byte order of this machine, in which files hold them and equal arrays count as equal."""
    if array.dtype.hasobject:
        raise InputError(f"{at}: an array of Python objects is Python code, which a file cannot hold")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


# ------------------------------------------------------------------------------------------------------------ reading


def decode(hint: Any, found: object, at: str, arrays: Arrays) -> Any:
    """What ``encode`` has written, as a value of the hinted type.

    Raises:
        ModelFileError: it is not what ``encode`` writes for such a value.
        AdaptiveLSTMError: what the constructors raise.
    """
    options = _options(hint)
    if (type(found) is float and float in options and abs(found) <= LARGEST) or (found is None and _NONE in options):
        return found  # most of what a long list holds
    chosen = next((option for option in options if _has_form(option, found)), None)
    if chosen is None:
        raise unexpected(found, at, " or ".join(_form(option) for option in options if _form(option)))
    origin, args = get_origin(chosen), get_args(chosen)
    if origin in (tuple, Sequence):
        return _row(args[0], found, at, arrays)
    if origin in (dict, Mapping):
        return {key: decode(args[1], value, f"{at}.{key}", arrays) for key, value in mapping(found, at).items()}
    if origin is np.ndarray:
        return arrays.take(at, np.dtype(get_args(args[1])[0]).name)
    if is_dataclass(chosen):
        assert isinstance(chosen, type)
        hints, names = _hints(chosen), [f.name for f in _settings(chosen)]
        given = mapping(found, at, names)
        return chosen(**{name: decode(hints[name], given[name], f"{at}.{name}", arrays) for name in names})
    return float(found) if chosen is float else found  # type: ignore[arg-type]  # the form is a number's


def with_defaults(cls: type, found: object, at: str) -> dict[str, Any]:
    """What ``decode`` expects of a dataclass: what ``encode_changed`` has written, or a file of before a new field.

    Raises:
        ModelFileError: it is no JSON object.
    """
    return _defaults(cls) | mapping(found, at)


def _defaults(cls: type) -> dict[str, Any]:
    """The fields that have a default, as ``encode`` writes them; none of them is an array."""
    given = [(f.name, f.default if f.default_factory is MISSING else f.default_factory()) for f in _settings(cls)]
    return {name: encode(default, name, {}) for name, default in given if default is not MISSING}


def mapping(found: object, at: str, names: Sequence[str] | None = None) -> dict[str, Any]:
    """A JSON object; with exactly these ``names``, if given.

    Raises:
        ModelFileError: it is something else, or has other names.
    """
    if not isinstance(found, dict):
        raise unexpected(found, at, "names with values")
    if len(found) > MAX_ITEMS:
        raise ModelFileError(f"{at}: got {len(found):,} entries, expected at most {MAX_ITEMS:,}")
    if names is not None and found.keys() != set(names):
        raise unexpected(sorted(found), at, ", ".join(sorted(names)) or "no names")
    return found


def unexpected(found: object, at: str, expected: str) -> ModelFileError:
    """The error for a value of another form than expected."""
    return ModelFileError(f"{at}: got {reprlib.repr(found)}, expected {expected}")


def _row(hint: Any, found: object, at: str, arrays: Arrays) -> tuple[Any, ...]:
    if found == ARRAY:
        row = arrays.take(at, "float64", None)
        if len(row) > MAX_NUMBERS or np.isnan(row).any():
            raise ModelFileError(f"{at}: got {len(row):,} numbers, expected at most {MAX_NUMBERS:,}, none of them NaN")
        return tuple(row.tolist())
    assert isinstance(found, list)
    if len(found) > MAX_ITEMS:
        raise ModelFileError(f"{at}: got {len(found):,} entries, expected at most {MAX_ITEMS:,}")
    return tuple(decode(hint, one, f"{at}.{i}", arrays) for i, one in enumerate(found))


@functools.cache
def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _has_form(hint: Any, found: object) -> bool:
    """Whether a JSON value has the form of a type; what is inside is not looked at."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(found, str) and found in args
    if origin in (tuple, Sequence):
        numbers = float in (args[0], *get_args(args[0]))
        return isinstance(found, list) or (found == ARRAY and numbers)
    if origin is np.ndarray:
        return found == ARRAY
    if origin in (dict, Mapping) or is_dataclass(hint):
        return isinstance(found, dict)
    if hint is int:
        return isinstance(found, int) and not isinstance(found, bool) and -(2**31) <= found < 2**31
    if hint is float:
        number = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= LARGEST
        return number or found == "inf"
    return hint in (bool, str, types.NoneType) and type(found) is hint


def _form(hint: Any) -> str:
    """The form of a type in words; empty for types that are never written."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin in (tuple, Sequence):
        return "a list"
    if origin is np.ndarray:
        return "an array"
    if origin in (dict, Mapping) or is_dataclass(hint):
        return "names with values"
    plain = {
        int: "a whole number of 32 bits",
        float: 'a finite number or "inf"',
        bool: "true or false",
        str: "a text",
        types.NoneType: "null",
    }
    return plain.get(hint, "")


def _settings(cls: type[Any]) -> list[Field[Any]]:
    return [field for field in fields(cls) if field.init]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Types of the fields; other annotations of the class may need imports that only a type checker makes."""
    found: dict[str, Any] = {}
    try:
        for name in (field.name for field in _settings(cls)):
            owner = next(one for one in cls.__mro__ if name in vars(one).get("__annotations__", {}))
            one = types.SimpleNamespace(__annotations__={name: owner.__annotations__[name]})
            found |= get_type_hints(one, vars(sys.modules[owner.__module__]))
        return found
    except NameError as error:
        raise InputError(f"{cls.__name__}: its type hints cannot be resolved at run time: {error}") from error


# ------------------------------------------------------------------------------------------------------------- digest


def digest(value: object) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal.

    Equal values have equal digests: keys are sorted, numbers have their shortest form, arrays count by dtype, shape and
    bytes. A field at its default is not included, so that a new setting changes no digest of an older value.

    Raises:
        InputError: as ``encode``.
    """
    return hashlib.sha256(json.dumps(_canonical(value, "value"), sort_keys=True).encode()).hexdigest()


def _canonical(value: object, at: str) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, np.ndarray):
        value = _native(value, at)
        data = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "sha256": data}
    if isinstance(value, tuple | list):
        return [_canonical(v, f"{at}.{i}") for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _canonical(v, f"{at}.{key}") for key, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changed = {}
        for field in _settings(type(value)):
            given, default = _canonical(getattr(value, field.name), f"{at}.{field.name}"), field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            if default is MISSING or given != _canonical(default, at):
                changed[field.name] = given
        return {"class": type(value).__name__, "fields": changed}
    return encode(value, at, {})


# ----------------------------------------------------------------------------------------------------- kinds of values


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number: Python's or numpy's, but no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number: Python's or numpy's, but no truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_one_of(value: object, names: Iterable[str]) -> bool:
    """Whether a value is one of some names; comparing others, such as arrays, may raise."""
    return isinstance(value, str) and value in names


def is_iterable(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether a value can be iterated; arrays and tensors of no dimension only look as if they could."""
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


def check_flag(name: str, value: object) -> None:
    """Raise ``InputError`` unless a value is True or False, or a number that says so."""
    if not isinstance(value, bool | int | np.bool_):
        raise InputError(f"{name}: got {brief(value)}, expected True or False")


def plain_numbers(owner: object, *names: str) -> None:
    """Numpy's numbers in these fields of a frozen dataclass, and in tuples there, become Python's."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, np.generic):
            object.__setattr__(owner, name, value.item())
        elif isinstance(value, tuple):
            object.__setattr__(owner, name, tuple(v.item() if isinstance(v, np.generic) else v for v in value))


# ----------------------------------------------------------------------------------------------------------- in words

Class = TypeVar("Class", bound=type)

TOLD_ITEMS = 4  # of a container
TOLD_TEXT = 80  # characters of a text
TOLD = 1000  # characters of a repr
TOLD_DEPTH = 4  # of containers in containers


def short_repr(cls: Class) -> Class:
    """A class decorator, above ``dataclass``: its repr names every field, and what is long in a few words."""
    setattr(cls, "__repr__", brief)  # noqa: B010 (mypy knows the method of the class)
    return cls


def brief(value: object) -> str:
    """A value in at most about TOLD characters; what is deep inside goes first."""
    told = ""
    try:
        for depth in range(TOLD_DEPTH, 0, -1):
            told = _told(value, depth)
            if len(told) <= TOLD:
                return told
    except Exception:  # noqa: BLE001 (nested tensors do not know their shape, and any class may define how it is told)
        return f"<{type(value).__name__}>"
    return f"{told[:TOLD]}..."


def _told(value: Any, depth: int) -> str:
    name = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{str(value.dtype).removeprefix('torch.')} {list(value.shape)}>"
    if is_dataclass(value) and not isinstance(value, type):
        shown = [f for f in fields(value) if f.repr]
        if not depth and shown:
            return f"{name}(...)"
        return f"{name}({', '.join(f'{f.name}={_told(getattr(value, f.name), depth - 1)}' for f in shown)})"
    if isinstance(value, Mapping):
        pairs = (f"{_told(key, 0)}: {_told(one, depth - 1)}" for key, one in value.items())
        return _told_row(pairs, len(value), "{}", depth)
    if isinstance(value, tuple | list | Set):
        ends = "()" if isinstance(value, tuple) else "[]" if isinstance(value, list) else "{}"
        return _told_row((_told(one, depth - 1) for one in value), len(value), ends, depth)
    told = repr(value)
    return told if len(told) <= TOLD_TEXT else f"{told[: TOLD_TEXT - 3]}..."


def _told_row(items: Iterable[str], count: int, ends: str, depth: int) -> str:
    if depth <= 0 and count:
        return f"{ends[0]}{count:,} in all{ends[1]}"
    shown = [item for item, _ in zip(items, range(TOLD_ITEMS), strict=False)]
    more = f", ... {count:,} in all" if count > TOLD_ITEMS else "," if count == 1 and ends == "()" else ""
    return f"{ends[0]}{', '.join(shown)}{more}{ends[1]}"
