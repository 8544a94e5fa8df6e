"""The policies of this package as JSON and arrays, and back; nothing else can be written without pickling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError, ModelFileError
from ..policies import (
    Combined,
    Delta,
    Dense,
    DepthTranslators,
    ExitInDepth,
    ExitInTime,
    HoldLayers,
    LinearHead,
    Map,
    Policy,
    SkipTimesteps,
    TimeTranslators,
)
from .fields import Arrays, mapping, number, sequence, text, whole, written

Plain = dict[str, Any]
Written = dict[str, np.ndarray]


def to_plain(policy: Policy, at: str, arrays: Written) -> Plain:
    """A policy as JSON can say it; what it holds in arrays is added to ``arrays``, with names that begin with ``at``.

    Raises:
        InputError: a policy or a head written in Python.
    """
    kind = type(policy)
    if isinstance(policy, Combined) and kind is Combined:
        parts = [to_plain(part, f"{at}.{i}", arrays) for i, part in enumerate(policy.policies)]
        return {"kind": "Combined", "policies": parts}
    if kind.__name__ not in _KINDS or _KINDS[kind.__name__][0] is not kind:
        raise InputError(
            f"{at}: {kind.__name__} is Python code, which a file that is never unpickled cannot hold; set another "
            "policy before you save, and this one again after you load"
        )
    return {"kind": kind.__name__, **_KINDS[kind.__name__][1](policy, at, arrays)}


def from_plain(found: object, at: str, arrays: Arrays) -> Policy:
    """What ``to_plain`` has written.

    Raises:
        ModelFileError: it is not what ``to_plain`` writes.
        PolicyError, UnsupportedError: the settings are impossible.
    """
    fields = dict(mapping(found, at))
    kind = text(fields.pop("kind", None), f"{at}: kind")
    if kind == "Combined":
        parts = sequence(mapping(fields, at, ("policies",))["policies"], at)
        if any(isinstance(part, dict) and part.get("kind") == "Combined" for part in parts):
            raise ModelFileError(f"{at}: got Combined inside Combined")
        return Combined(*(from_plain(part, f"{at}.{i}", arrays) for i, part in enumerate(parts)))
    if kind not in _KINDS:
        raise ModelFileError(f"{at}: got a policy {kind!r:.50}, expected one of {', '.join((*_KINDS, 'Combined'))}")
    return _KINDS[kind][2](fields, at, arrays)


# ---------------------------------------------------------------------------------------------------- dense and delta


def _dense(policy: Dense, at: str, arrays: Written) -> Plain:
    return {}


def _read_dense(found: Plain, at: str, arrays: Arrays) -> Dense:
    mapping(found, at, ())
    return Dense()


def _delta(policy: Delta, at: str, arrays: Written) -> Plain:
    out: Plain = {}
    for name, spec in (("h", policy.h), ("x", policy.x)):
        assert not isinstance(spec, str)  # resolved in __post_init__
        if not isinstance(spec, tuple):
            out[name] = _maybe(spec)
            continue
        out[name] = []
        for i, entry in enumerate(spec):
            if isinstance(entry, tuple):
                arrays[f"{at}.{name}.{i}"] = np.asarray(entry, np.float32)
            out[name].append("array" if isinstance(entry, tuple) else _maybe(entry))
    return out


def _read_delta(found: Plain, at: str, arrays: Arrays) -> Delta:
    specs: Plain = {}
    for name, spec in mapping(found, at, ("h", "x")).items():
        where = f"{at}.{name}"
        specs[name] = (
            tuple(
                arrays.take(f"{where}.{i}", "float32", None) if entry == "array" else _read_maybe(entry, where)
                for i, entry in enumerate(spec)
            )
            if isinstance(spec, list)
            else _read_maybe(spec, where)
        )
    return Delta(**specs)


# ------------------------------------------------------------------------------------------------------------ holding


def _skip(policy: SkipTimesteps, at: str, arrays: Written) -> Plain:
    return {"x_share": _maybe(policy.x_share), "h": _maybe(policy.h), "mode": policy.mode, "cap": policy.cap}


def _read_skip(found: Plain, at: str, arrays: Arrays) -> SkipTimesteps:
    f = mapping(found, at, ("x_share", "h", "mode", "cap"))
    mode: Any = text(f["mode"], f"{at}.mode")
    return SkipTimesteps(
        x_share=_read_maybe(f["x_share"], f"{at}.x_share"),
        h=_read_maybe(f["h"], f"{at}.h"),
        mode=mode,
        cap=whole(f["cap"], at),
    )


def _hold(policy: HoldLayers, at: str, arrays: Written) -> Plain:
    x = [_maybe(limit) for limit in policy.x_share] if isinstance(policy.x_share, tuple) else _maybe(policy.x_share)
    return {"x_share": x, "h": _maybe(policy.h), "mode": policy.mode, "cap": policy.cap}


def _read_hold(found: Plain, at: str, arrays: Arrays) -> HoldLayers:
    f = mapping(found, at, ("x_share", "h", "mode", "cap"))
    x: Any = f["x_share"]
    mode: Any = text(f["mode"], f"{at}.mode")
    x = tuple(_read_maybe(v, f"{at}.x_share") for v in x) if isinstance(x, list) else number(x, f"{at}.x_share")
    return HoldLayers(x_share=x, h=_read_maybe(f["h"], f"{at}.h"), mode=mode, cap=whole(f["cap"], at))


# -------------------------------------------------------------------------------------------------------------- exits


def _exit(policy: ExitInTime | ExitInDepth, at: str, arrays: Written) -> Plain:
    """What exits in time and in depth have in common."""
    head = policy.head
    if head is not None and type(head) is not LinearHead:
        raise InputError(
            f"{at}.head: {type(head).__name__} is Python code, which a file that is never unpickled cannot hold; give "
            "the exit a LinearHead or a linear module, or set another policy before you save and this one again after "
            "you load"
        )
    if head is not None:
        _put(head, f"{at}.head", arrays)
    thresholds = [written(t) for t in policy.thresholds]
    return {"head": None if head is None else head.activation, "threshold": thresholds, "measure": policy.measure}


def _read_exit(found: Plain, at: str, arrays: Arrays) -> Plain:
    """The same as arguments."""
    head = None
    if found["head"] is not None:
        activation: Any = text(found["head"], f"{at}.head")
        head = LinearHead(*_take(f"{at}.head", arrays), activation)
    threshold = tuple(number(t, f"{at}.threshold") for t in sequence(found["threshold"], f"{at}.threshold"))
    return {"head": head, "threshold": threshold, "measure": text(found["measure"], f"{at}.measure")}


_IN_TIME = ("head", "threshold", "measure", "translators", "starts", "check_every", "patience", "window")
_IN_DEPTH = ("head", "threshold", "measure", "translators", "level")


def _time(policy: ExitInTime, at: str, arrays: Written) -> Plain:
    out = _exit(policy, at, arrays)
    for i, m in enumerate(policy.translators.maps if policy.translators else ()):
        _put(m, f"{at}.map.{i}", arrays)
    out["translators"] = list(policy.translators.starts) if policy.translators else None
    out["starts"] = list(policy.starts or ())
    return out | {"check_every": policy.check_every, "patience": policy.patience, "window": policy.window}


def _read_time(found: Plain, at: str, arrays: Arrays) -> ExitInTime:
    f = mapping(found, at, _IN_TIME)
    translators = None
    if f["translators"] is not None:
        starts = _starts(f["translators"], f"{at}.translators")
        maps = tuple(Map(*_take(f"{at}.map.{i}", arrays)) for i in range(len(starts)))
        translators = TimeTranslators(starts, maps)
    counts: dict[str, Any] = {name: whole(f[name], f"{at}.{name}") for name in ("check_every", "patience", "window")}
    starts = _starts(f["starts"], f"{at}.starts")
    return ExitInTime(**_read_exit(f, at, arrays), translators=translators, starts=starts, **counts)


def _depth(policy: ExitInDepth, at: str, arrays: Written) -> Plain:
    pairs = zip(policy.translators.steps, policy.translators.finals, strict=True) if policy.translators else ()
    for k, (step, final) in enumerate(pairs):
        _put(step, f"{at}.step.{k}", arrays)
        _put(final, f"{at}.final.{k}", arrays)
    count = len(policy.translators.steps) if policy.translators else None
    return _exit(policy, at, arrays) | {"translators": count, "level": policy.level}


def _read_depth(found: Plain, at: str, arrays: Arrays) -> ExitInDepth:
    f = mapping(found, at, _IN_DEPTH)
    translators = None
    if f["translators"] is not None:
        layers = range(whole(f["translators"], f"{at}.translators"))  # the first array that is missing ends it
        steps, finals = (tuple(Map(*_take(f"{at}.{name}.{k}", arrays)) for k in layers) for name in ("step", "final"))
        translators = DepthTranslators(steps, finals)
    level: Any = text(f["level"], f"{at}.level")
    return ExitInDepth(**_read_exit(f, at, arrays), translators=translators, level=level)


# -------------------------------------------------------------------------------------------------------------- parts


def _maybe(value: Any) -> float | str | None:
    return None if value is None else written(value)


def _read_maybe(value: object, where: str) -> float | None:
    return None if value is None else number(value, where)


def _starts(value: object, where: str) -> tuple[int, ...]:
    return tuple(whole(start, where) for start in sequence(value, where))


def _put(affine: LinearHead | Map, name: str, arrays: Written) -> None:
    arrays[f"{name}.weight"], arrays[f"{name}.bias"] = affine.weight, affine.bias


def _take(name: str, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    return arrays.take(f"{name}.weight", "float32", None, None), arrays.take(f"{name}.bias", "float32", None)


_KINDS: dict[str, tuple[type, Callable[[Any, str, Written], Plain], Callable[[Plain, str, Arrays], Policy]]] = {
    "Dense": (Dense, _dense, _read_dense),
    "Delta": (Delta, _delta, _read_delta),
    "SkipTimesteps": (SkipTimesteps, _skip, _read_skip),
    "HoldLayers": (HoldLayers, _hold, _read_hold),
    "ExitInTime": (ExitInTime, _time, _read_time),
    "ExitInDepth": (ExitInDepth, _depth, _read_depth),
}
