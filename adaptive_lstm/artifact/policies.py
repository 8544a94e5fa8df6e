"""Policies in a file: the settings of each with the name of its kind; the reader must know the kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from .. import codec
from ..errors import InputError, ModelFileError
from ..policies import (
    Combined,
    Delta,
    Dense,
    ExitInDepth,
    ExitInTime,
    HoldLayers,
    Policy,
    SkipTimesteps,
    SplitTime,
    kind_of,
)
from ..policies.kind import row_of

Kinds = Mapping[str, type[Policy]]
"""Classes of policies by the name of their kind."""

MAX_PARTS = 64  # of a Combined, which makes each of five decisions once, but for holding layers

_OURS: tuple[type[Policy], ...] = (Dense, Delta, SkipTimesteps, HoldLayers, ExitInTime, ExitInDepth, SplitTime)


def known_kinds(own: Sequence[object] = ()) -> Kinds:
    """The kinds that can be read: those of this package, and the caller's ``own``.

    Raises:
        InputError: one is no dataclass with a ``PolicyKind`` of its own, or two have one name.
    """
    kinds: dict[str, Any] = {}
    if not codec.is_iterable(own):
        raise InputError(f"policies: got {codec.brief(own)}, expected classes of policies, for example [MyPolicy]")
    for policy in (*_OURS, *own):
        row = row_of(policy) if isinstance(policy, type) else None
        if row is None or not is_dataclass(policy):
            raise InputError(
                f"policies: got {codec.brief(policy)}, expected a dataclass with a PolicyKind in its attribute kind"
            )
        if kinds.setdefault(row.name, policy) is not policy:
            raise InputError(f"policies: got a second kind with the name {row.name}; give yours another one")
    return kinds


def encode_policy(policy: Policy, at: str, arrays: codec.Written) -> dict[str, Any]:
    """A policy as JSON values; its arrays are added to ``arrays``, with names that begin with ``at``.

    Raises:
        InputError: it holds Python code: a class without a ``PolicyKind``, or a head that is a callable.
    """
    if isinstance(policy, Combined):
        parts = [encode_policy(part, f"{at}.{i}", arrays) for i, part in enumerate(policy.policies)]
        return {"kind": "Combined", "policies": parts}
    try:
        if row_of(type(policy)) is None:
            raise InputError(
                f"{at}: {type(policy).__name__} is Python code, which a file that is never unpickled cannot hold"
            )
        return {"kind": kind_of(policy).name, "settings": codec.encode(policy, at, arrays)}
    except InputError as error:
        raise InputError(
            f"{error}; give the exit a LinearHead or a linear module, your own class a PolicyKind, or set another "
            "policy before you save and this one again after you load"
        ) from error


def decode_policy(found: object, at: str, arrays: codec.Arrays, kinds: Kinds) -> Policy:
    """What ``encode_policy`` has written.

    Raises:
        ModelFileError: it is not what ``encode_policy`` writes, or of an unknown kind.
        PolicyError, UnsupportedError: the settings are impossible.
    """
    given = codec.mapping(found, at)
    if given.get("kind") == "Combined":
        parts = codec.mapping(given, at, ("kind", "policies"))["policies"]
        if not isinstance(parts, list) or len(parts) > MAX_PARTS:
            raise codec.unexpected(parts, f"{at}.policies", f"a list of at most {MAX_PARTS} policies")
        if any(isinstance(part, dict) and part.get("kind") == "Combined" for part in parts):
            raise ModelFileError(f"{at}: got Combined inside Combined")
        return Combined(*(decode_policy(part, f"{at}.{i}", arrays, kinds) for i, part in enumerate(parts)))
    kind = codec.mapping(given, at, ("kind", "settings"))["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise ModelFileError(
            f"{at}: got a policy {kind!r:.50}, expected one of {', '.join((*kinds, 'Combined'))}; a class of your own "
            "is named when the file is read: load(path, model, policies=[MyPolicy])"
        )
    policy: Policy = codec.decode(kinds[kind], given["settings"], at, arrays)
    return policy
