"""An audit revokes what loses more than promised, and hardly ever what does not; it goes on, merges and falls back."""

from __future__ import annotations

import copy
import json
import math
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.calibration.audit import REPEATED
from adaptive_lstm.calibration.e_process import EProcess, bets
from adaptive_lstm.errors import CalibrationError, InputError, PolicyError
from adaptive_lstm.model_io import RUNS
from adaptive_lstm.policies.combined import acts

from ..support.small_task import Classifier, adapted_classifier, drawn, unchanged

LIMIT = 0.1
HARMLESS, HARMFUL = al.Delta.uniform(1e-6), al.Delta.uniform(3.0)


def served(policy: al.Policy = HARMFUL) -> tuple[Any, Any]:
    """An adapted model that skips, and the original."""
    fast = adapted_classifier(2)
    original = Classifier(2).eval()
    original.load_state_dict(fast.state_dict())
    fast.lstm.policy = policy
    return fast, original


def serve(model: Any, calls: int, seed: int = 5) -> None:
    with torch.no_grad():
        for x, _ in drawn(calls, seed=seed):
            model(x)


# ------------------------------------------------------------------------------------------------------ the evidence


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5])
def test_wealth_does_not_grow_on_average_at_the_limit(limit: float) -> None:
    """E[1 + b (l - m)] is 1 where E[l] = m: exact over the two outcomes."""
    win, lose = EProcess(limit).after(1.0), EProcess(limit).after(0.0)
    grown = limit * np.exp(win.log_wealth) + (1 - limit) * np.exp(lose.log_wealth)
    assert grown == pytest.approx(np.ones_like(grown), abs=1e-12)
    assert np.all(bets(limit) * limit < 1)  # wealth stays positive


def test_evidence_does_not_depend_on_how_losses_are_grouped() -> None:
    losses = np.random.default_rng(0).random(50)
    at_once, one_by_one = EProcess(0.3).after(losses), EProcess(0.3)
    for loss in losses:
        one_by_one = one_by_one.after(loss)
    assert at_once.log_wealth == pytest.approx(one_by_one.log_wealth)
    assert at_once.peak == pytest.approx(one_by_one.peak)
    halves = EProcess(0.3).after(losses[:20]).merged(EProcess(0.3).after(losses[20:]))
    assert halves.log_wealth == pytest.approx(at_once.log_wealth)
    assert halves.count == 50
    assert halves.mean == pytest.approx(losses.mean())
    assert EProcess.from_dict(json.loads(json.dumps(at_once.as_dict()))) == at_once


@pytest.mark.slow
def test_a_kept_promise_is_hardly_ever_revoked() -> None:
    """400 audits of 20,000 losses at the limit; eval.audit has the larger figures."""
    random = np.random.default_rng(1)
    limit, level = 0.05, math.log(20)
    revoked = sum(EProcess(limit).after(random.random(20_000) < limit).peak >= level for _ in range(400))
    assert revoked <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_a_broken_promise_is_revoked_about_as_soon_as_can_be() -> None:
    """Twice the limit: the best test that knows the risk takes log(1 / alpha) / KL audits on average."""
    random = np.random.default_rng(2)
    limit, level, took = 0.05, math.log(20), []
    for _ in range(60):
        found = EProcess(limit)
        while found.peak < level:
            found = found.after(random.random(10) < 2 * limit)
        took.append(found.count)
    p, m = 2 * limit, limit
    best = level / (p * math.log(p / m) + (1 - p) * math.log((1 - p) / (1 - m)))
    assert best / 2 < np.median(took) < 2 * best


# --------------------------------------------------------------------------------------------------------- the audit


def test_a_model_that_loses_too_much_is_revoked_once() -> None:
    fast, original = served()
    audit = al.audit(fast, original, rate=1.0, max_loss=LIMIT, confidence=0.95)
    with pytest.warns(al.AuditWarning, match=r"disagreement <= 0\.1 is revoked.*Nothing is skipped") as told:
        serve(fast, 200)
    assert len(told) == 1
    assert audit.state == "revoked"
    assert audit.evidence >= audit.needed == pytest.approx(20)
    assert audit.mean_loss > LIMIT
    assert not acts(fast.lstm.policy)
    assert audit.audited < audit.seen == 200  # nothing is left to be audited
    assert "revoked" in repr(audit)


def test_a_model_that_keeps_its_promise_serves_on() -> None:
    fast, original = served(HARMLESS)
    with unchanged(original), warnings.catch_warnings():
        warnings.simplefilter("error")
        with al.audit(fast, original, rate=1.0, max_loss=LIMIT) as audit:
            serve(fast, 150)
    assert (audit.state, audit.audited, audit.mean_loss) == ("holding", 150, 0.0)
    assert audit.evidence < 1
    assert fast.lstm.policy is HARMLESS
    serve(fast, 5)  # closed
    assert audit.seen == 150


def test_a_share_of_the_calls_is_audited() -> None:
    fast, original = served(HARMLESS)
    counted: list[int] = []
    original.register_forward_hook(lambda *_: counted.append(1))
    audits = [al.audit(copy.deepcopy(fast), original, rate=0.1, max_loss=LIMIT, seed=3) for _ in range(2)]
    for audit in audits:
        serve(audit.model, 300)
        assert 12 <= audit.audited <= 50
    assert audits[0].audited == audits[1].audited  # one seed, one draw
    assert len(counted) == 2 * (audits[0].audited + REPEATED * (RUNS - 1))


def test_fallbacks_come_one_after_another() -> None:
    fast, original = served()
    still = al.Delta.uniform(2.9)
    audit = al.audit(fast, original, rate=1.0, max_loss=LIMIT, fallbacks=[still, {"lstm": HARMLESS}])
    with pytest.warns(al.AuditWarning, match="The next more careful policy serves now"):
        serve(fast, 300)
    assert fast.lstm.policy is HARMLESS
    assert (audit.state, audit.revocations) == ("holding", 2)


def test_an_audit_goes_on_and_merges(tmp_path: Path) -> None:
    fast, original = served(HARMLESS)
    ask: dict[str, Any] = {"rate": 1.0, "max_loss": LIMIT, "confidence": 0.9}
    with al.audit(fast, original, **ask) as first:
        serve(fast, 40)
    first.save(tmp_path / "audit.json")
    told = json.loads((tmp_path / "audit.json").read_text())
    with al.audit(fast, original, **ask, resume=told) as second:
        serve(fast, 10)
    assert (second.seen, second.audited) == (50, 50)
    with al.audit(fast, original, **ask) as third:
        third.merge(second)
        third.merge(told)
        assert (third.seen, third.audited, third.state) == (90, 90, "holding")
    # Two that each have seen too little, together have seen enough.
    half: dict[str, Any] = al.audit(fast, original, **ask).as_dict()
    half["evidence"] = EProcess(LIMIT).after([1.0]).as_dict()
    both = al.audit(fast, original, **ask, resume=half)
    assert both.state == "holding"
    with pytest.warns(al.AuditWarning):
        both.merge(half)
    assert "Audit(revoked" in repr(both)
    with al.audit(fast, original, **ask, resume=both.as_dict()) as later:
        assert later.state == "revoked"
        assert not acts(fast.lstm.policy)


def test_segments_of_streams() -> None:
    fast, original = served()
    head = fast.head
    audit = al.audit(fast, original, rate=1.0, max_loss=LIMIT)

    def run() -> None:
        for x, _ in drawn(60, seed=9):
            opened.reset()
            audit.check(x, head(opened.run(x)[:, -1]))

    with torch.no_grad(), al.stream(fast.lstm) as opened, pytest.warns(al.AuditWarning):
        run()
    assert audit.state == "revoked"
    assert audit.seen == 60


def test_copies_and_files_of_a_model_are_not_audited() -> None:
    fast, original = served(HARMLESS)
    audit = al.audit(fast, original, rate=1.0, max_loss=LIMIT)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        serve(other, 3)
    al.time_policy(fast, [x for x, _ in drawn(2)], rounds=4)
    assert audit.seen == 0
    serve(fast, 3)
    assert audit.seen == 3


def test_threads_share_an_audit() -> None:
    fast, original = served(HARMLESS)
    with al.audit(fast, original, rate=1.0, max_loss=LIMIT) as audit:
        threads = [threading.Thread(target=serve, args=(fast, 100, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert audit.seen == audit.audited == 400


# ---------------------------------------------------------------------------------------------------------- bad input


def other_head(original: Any) -> Any:
    with torch.no_grad():
        original.head.weight.mul_(-5)
    return original


def other_lstm(original: Any) -> Any:
    with torch.no_grad():
        original.lstm.weight_hh_l1[0, 0] += 1e-6
    return original


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0}, "rate: got 0, expected a share of the calls"),
        ({"rate": 1.5}, "rate: got 1.5"),
        ({"rate": float("nan")}, "rate: got nan"),
        ({"max_loss": 0}, "max_loss: got 0"),
        ({"max_loss": 1}, "max_loss: got 1"),
        ({"confidence": 0.4}, "confidence: got 0.4"),
        ({"loss": "disagreement"}, "loss"),
        ({"original": other_head}, "other weights around its LSTMs"),
        ({"original": other_lstm}, "'lstm' has other weights"),
        ({"original": lambda original: original.train()}, "it is in training mode"),
        ({"original": lambda original: original.lstm}, "it holds the LSTMs"),
        ({"original": lambda original: None}, "expected the model that this one was adapted from"),
        ({"fallbacks": [{"other": al.Dense()}]}, "fallbacks: got policies of"),
        ({"resume": {}}, "got no audit"),
        ({"resume": {"loss": "x", "confidence": 0.95, "seen": 0, "revocations": 0}}, "got no audit"),
    ],
)
def test_an_audit_refuses(change: dict[str, Any], message: str) -> None:
    fast, original = served()
    change = dict(change)
    original = change.pop("original", lambda same: same)(original)
    with unchanged(fast), pytest.raises(InputError, match=message):
        al.audit(fast, original, **({"max_loss": LIMIT} | change))
    assert not fast._forward_hooks


def test_an_audit_refuses_policies_that_do_not_fit() -> None:
    fast, original = served()
    with pytest.raises(PolicyError):
        al.audit(fast, original, max_loss=LIMIT, fallbacks=[al.Delta(h=((1.0,), (1.0,), (1.0,)))])


@pytest.mark.parametrize("loss", [-0.1, 1.1, float("nan")])
def test_losses_out_of_range_change_nothing(loss: float) -> None:
    fast, original = served(HARMLESS)
    wrong = al.losses.Loss("wrong", lambda *_: loss)
    with al.audit(fast, original, max_loss=LIMIT, rate=1.0, loss=wrong) as audit:
        with pytest.raises(CalibrationError, match=r"wrong: got a loss of .*expected values in \[0, 1\]"):
            serve(fast, 1)
        assert audit.audited == 0


def test_an_audit_of_another_limit_is_not_merged() -> None:
    fast, original = served(HARMLESS)
    audits = [al.audit(fast, original, max_loss=limit) for limit in (0.2, LIMIT)]
    with pytest.raises(InputError, match=r"got an audit of disagreement <= 0\.2"):
        audits[1].merge(audits[0])


def told(**change: Any) -> dict[str, Any]:
    """An audit of three losses of 0.3, as ``Audit.as_dict`` gives it, with other values in it."""
    evidence = EProcess(LIMIT).after([0.3] * 3).as_dict()
    whole = {"loss": "disagreement", "confidence": 0.95, "seen": 3, "revocations": 0, "evidence": evidence}
    for key, value in change.items():
        (whole if key in whole else evidence)[key] = value
    return whole


@pytest.mark.parametrize(
    "change",
    [
        {"revocations": -1},
        {"seen": -1},
        {"seen": math.inf},
        {"count": math.inf},
        {"count": 2**70},
        {"count": 1},
        {"peak": 50.0},
        {"peak": -1.0},
        {"log_wealth": [1e308] * 24},
        {"log_wealth": [-1e308] * 24},
        {"log_wealth": [math.nan] * 24},
    ],
    ids=str,
)
def test_evidence_that_no_losses_give_is_refused(change: dict[str, Any]) -> None:
    fast, original = served(HARMLESS)
    with al.audit(fast, original, max_loss=LIMIT, resume=told(), seed=0) as audit:
        with unchanged(fast), pytest.raises(InputError, match="audit"):
            audit.merge(told(**change))
        assert audit.audited == 3
        with pytest.raises(InputError, match="audit"):
            al.audit(fast, original, max_loss=LIMIT, resume=told(**change))


class Certain(torch.nn.Module):
    """The positive class's probability, where a logit would have a sign."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        probability: torch.Tensor = self.model(x).softmax(-1)[..., :1]
        return probability


def test_a_loss_that_means_nothing_ends_the_audit() -> None:
    """Probabilities never change their sign: the promise would be held forever."""
    fast, original = (Certain(model).eval() for model in served())
    audit = al.audit(fast, original, rate=1.0, max_loss=LIMIT)
    serve(fast, 15)
    with pytest.raises(InputError, match="these are probabilities"):
        serve(fast, 1)
    serve(fast, 3)
    assert audit.seen == 16
    with al.audit(fast, original, rate=1.0, max_loss=LIMIT, loss=al.losses.disagreement.unchecked()) as trusted:
        serve(fast, 20)
    assert trusted.audited == 20
