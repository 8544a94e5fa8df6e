"""Evidence is of one policy: audits merge what they found against the same one, and follow who has fallen further."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import InputError
from adaptive_lstm.policies.combined import acts

from ..support.small_task import Classifier, adapted_classifier, drawn

LIMIT = 0.1
FIRST, SECOND = al.Delta.uniform(3.0), al.Delta.uniform(1e-6)
AGAINST = [1.0, 0.0, 1.0]  # not enough to revoke a promise; twice as many are


def audited(losses: Iterable[float] = (), fallbacks: Sequence[Any] = (SECOND,), policy: al.Policy = FIRST) -> Any:
    """An audit of a model of its own, after some losses."""
    fast = adapted_classifier(2)
    original = Classifier(2).eval()
    original.load_state_dict(fast.state_dict())
    fast.lstm.policy = policy
    audit = al.audit(fast, original, max_loss=LIMIT, fallbacks=fallbacks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", al.AuditWarning)
        for loss in losses:
            audit.add(loss)
    return audit


def saved(audit: al.Audit) -> Any:
    """What a file of an audit holds."""
    return json.loads(json.dumps(audit.as_dict()))


def fallen(losses: Iterable[float] = ()) -> Any:
    """An audit whose first policy is revoked, after some losses of the second."""
    return audited([*[1.0] * 3, *losses])


def serve_badly(audit: Any) -> None:
    """Enough losses to revoke a promise."""
    for _ in range(3):
        audit.add(1.0)


def test_the_cases_are_what_they_say() -> None:
    assert (audited(AGAINST).revocations, audited(AGAINST * 2).revocations) == (0, 1)
    assert (fallen().revocations, fallen().audited) == (1, 0)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_evidence_against_a_revoked_policy_counts_for_nothing(through_a_file: bool) -> None:
    audit, other = fallen([0.0] * 5), audited(AGAINST)
    evidence, other.seen = audit.evidence, 40
    for _ in range(3):
        audit.merge(saved(other) if through_a_file else other)
    assert (audit.evidence, audit.audited, audit.revocations, audit.state) == (evidence, 5, 1, "holding")
    assert audit.seen == 120
    assert audit.model.lstm.policy is SECOND


@pytest.mark.parametrize("through_a_file", [False, True])
def test_an_audit_follows_one_that_has_fallen_back_further(through_a_file: bool) -> None:
    audit, other = audited(AGAINST), fallen([0.0, 1.0])
    with pytest.warns(al.AuditWarning, match="has found more. The next more careful policy serves now") as told:
        audit.merge(saved(other) if through_a_file else other)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert (audit.revocations, audit.audited, audit.evidence) == (1, 2, other.evidence)
    assert audit.model.lstm.policy is SECOND


def test_an_audit_follows_one_that_has_nothing_left_to_fall_back_to() -> None:
    audit, other = audited(AGAINST), audited([1.0] * 6)
    assert other.state == "revoked"
    with pytest.warns(al.AuditWarning, match="Nothing is skipped any more"):
        audit.merge(other)
    assert (audit.state, audit.revocations) == ("revoked", 2)
    assert not acts(audit.model.lstm.policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was said once
        audit.merge(other)
        audit.merge(fallen())


def test_evidence_against_the_same_fallback_is_merged() -> None:
    audit = fallen(AGAINST)
    with pytest.warns(al.AuditWarning, match="Nothing is skipped any more"):
        audit.merge(fallen(AGAINST))
    assert audit.state == "revoked"


@pytest.mark.parametrize("through_a_file", [False, True])
def test_the_order_of_merges_does_not_matter(through_a_file: bool) -> None:
    """Where one has fallen back, only what was found against its policy is left, whoever is asked first."""
    ends = []
    for order in permutations([AGAINST, AGAINST, [1.0] * 3 + [0.0, 0.5]]):
        audit, *others = map(audited, order)
        with pytest.warns(al.AuditWarning) if audit.revocations == 0 else warnings.catch_warnings():
            for other in others:
                audit.merge(saved(other) if through_a_file else other)
        ends.append((audit.revocations, audit.audited, audit.evidence, audit.model.lstm.policy is SECOND, audit.seen))
    assert len(set(ends)) == 1
    assert ends[0][:2] == (1, 2)


def test_an_audit_that_goes_on_from_a_file_merges_as_before() -> None:
    before = fallen([0.0])
    fast, original = before.model, before._original
    before.close()
    resumed = al.audit(fast, original, max_loss=LIMIT, fallbacks=[SECOND], resume=saved(before))
    resumed.merge(audited(AGAINST))
    resumed.merge(fallen([0.0] * 2))
    assert (resumed.revocations, resumed.audited) == (1, 3)
    assert saved(resumed)["policies"] == saved(before)["policies"]  # not what the model happened to have


@pytest.mark.parametrize(
    "options",
    [{"fallbacks": ()}, {"fallbacks": (al.Delta.uniform(1e-5),)}, {"policy": al.Delta.uniform(2.0)}],
    ids=["none", "another fallback", "another policy"],
)
def test_evidence_against_other_policies_is_refused(options: dict[str, Any]) -> None:
    audit, other = audited(AGAINST), audited(AGAINST, **options)
    with pytest.raises(InputError, match="of another policy or with other fallbacks"):
        audit.merge(saved(other))
    assert (audit.audited, audit.evidence) == (3, audited(AGAINST).evidence)
    with pytest.raises(InputError, match="of another policy or with other fallbacks"):
        al.audit(audit.model, audit._original, max_loss=LIMIT, fallbacks=[SECOND], resume=saved(other))


@pytest.mark.parametrize("revocations", [0, 1, 3])
def test_a_record_that_no_audit_writes_is_refused(revocations: int) -> None:
    """Evidence that revokes, of a policy that is said to serve on; and more revocations than there are policies."""
    told = saved(audited([1.0] * 6)) | {"revocations": revocations}
    with pytest.raises(InputError, match="expected the fallbacks of that audit"):
        audited().merge(told)


def test_what_is_open_keeps_its_policy() -> None:
    """As the warning says: streams that are open, also after a reset, and those of a pool that was made before."""
    audit = audited()
    lstm, frames = audit.model.lstm, drawn(1)[0][0][0]
    stream, pool = al.stream(lstm), al.StreamPool(lstm, 2)

    def last(run: al.Stream) -> torch.Tensor:
        return [run.step(frame[None]) for frame in frames][-1]

    def last_of_pool() -> torch.Tensor:
        seat = pool.open()
        for frame in frames:
            pool.push(seat, frame)
            out = pool.tick()[seat]
        return out

    with torch.no_grad():
        before = last(stream)
        with pytest.warns(al.AuditWarning, match=r"also after reset\(\), and stream pools keep the policy"):
            serve_badly(audit)
        stream.reset()
        assert torch.equal(last(stream), before)
        assert torch.equal(last_of_pool().flatten(), before.flatten())
        with al.stream(lstm) as anew:
            assert not torch.equal(last(anew), before)
