"""What an audit has found so far, as it is saved, gone on with, and merged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import InputError
from ..losses import Loss
from ..policies import Policy
from ..runtime.adapt import adapted_lstms
from .certificate import policy_digest
from .e_process import EProcess

Fallback = Policy | Mapping[str, Policy]

Digests = tuple[str | None, ...]
"""Of the audited policy and of its fallbacks; None for one that holds Python code."""


@dataclass(frozen=True)
class Begun:
    """Where an audit starts.

    Attributes:
        evidence: against the policy that so many revocations lead to.
        seen: calls so far.
        revocations: promises revoked so far.
        policies: the audited policy and its fallbacks; empty: not known.
    """

    evidence: EProcess
    seen: int = 0
    revocations: int = 0
    policies: Digests = ()


def digests_of(model: nn.Module, fallbacks: Sequence[Fallback]) -> Digests:
    """The policy that a model has now, and its fallbacks."""
    lstms = adapted_lstms(model)
    by_name = [f if isinstance(f, Mapping) else dict.fromkeys(lstms, f) for f in fallbacks]
    return tuple(map(policy_digest, [{name: lstm.policy for name, lstm in lstms.items()}, *by_name]))


def read_record(told: Mapping[str, Any], loss: Loss, limit: float, confidence: float, policies: Digests) -> Begun:
    """Read what ``Audit.as_dict`` gave, for an audit of this loss and of these policies.

    The first policy of an audit that has fallen back is not compared: a model that goes on may have its fallback now.

    Raises:
        InputError: something else, or of another audit.
    """
    try:
        evidence, seen, revocations = EProcess.from_dict(told["evidence"]), int(told["seen"]), int(told["revocations"])
        asked = str(told["loss"]), float(told["confidence"])
        theirs = tuple(None if one is None else str(one) for one in told.get("policies", ()))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"got no audit, expected what Audit.as_dict() gives: {error!r:.100}") from error
    if min(seen, revocations) < 0:
        raise InputError(
            f"got an audit of {seen} calls with {revocations} promises revoked, expected no negative counts"
        )
    if (*asked, evidence.limit) != (loss.name, confidence, limit):
        raise InputError(
            f"got an audit of {asked[0]} <= {evidence.limit:g} at confidence {asked[1]:g}, "
            f"expected {loss.name} <= {limit:g} at confidence {confidence:g}"
        )
    first = 1 if revocations else 0
    if theirs and (len(theirs), theirs[first:]) != (len(policies), policies[first:]):
        raise InputError(
            "got an audit of another policy or with other fallbacks than this one; audit the same policies, with the "
            "same fallbacks"
        )
    ended, revoked = revocations == len(policies), evidence.peak >= math.log(1 / (1 - confidence))
    if revocations > len(policies) or ended != revoked:
        raise InputError(
            f"got an audit with {revocations} promises revoked and {len(policies) - 1} fallbacks to go through whose "
            f"evidence {'revokes' if revoked else 'does not revoke'} one, expected the fallbacks of that audit"
        )
    return Begun(evidence, seen, revocations, theirs)
