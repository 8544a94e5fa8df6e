"""What does not repeat itself, or has outputs that can be read in two ways, cannot be audited: the audit ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.calibration.audit import CHECKED
from adaptive_lstm.errors import CalibrationError, InputError

from ..support.helpers import infer
from ..support.small_task import Classifier, drawn

LIMIT = 0.1


class Sampling(Classifier):
    """Its outputs are drawn, in eval mode too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits under dropout."""
        return torch.nn.functional.dropout(super().forward(x), 0.5, training=True)


class InDict(Classifier):
    """Several outputs by name, of which only one is drawn."""

    def forward(self, x: torch.Tensor) -> Any:
        """A dict."""
        logits = super().forward(x)
        return {"logits": logits, "sample": [torch.randn(3) + logits]}


@pytest.mark.parametrize("kind", [Sampling, InDict])
@pytest.mark.parametrize("by_hand", [False, True])
def test_an_original_that_does_not_repeat_itself_ends_the_audit(kind: Any, by_hand: bool) -> None:
    original = kind(1).eval()
    fast = al.adapt(original)
    loss = al.losses.disagreement.reading(lambda out: out["logits"] if isinstance(out, dict) else out)
    audit = al.audit(fast, original, max_loss=LIMIT, rate=1.0, loss=loss)
    x = drawn(1)[0][0]
    with torch.no_grad(), pytest.raises(InputError, match="two outputs for the same input"):
        audit.check(x, original(x)) if by_hand else fast(x)
    assert audit.state == "holding"
    seen = audit.seen
    with torch.no_grad():
        fast(x)
    assert audit.seen == seen


def test_an_original_that_starts_from_what_it_remembers_repeats_itself() -> None:
    class Remembers(Classifier):
        """Counts in its logits how often it was called."""

        calls: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Logits, a little larger every time."""
            self.calls = torch.zeros(()) if self.calls is None else self.calls + 1
            return super().forward(x) + self.calls

    original = Remembers(1).eval()
    fast = al.adapt(original)
    with al.audit(fast, original, max_loss=LIMIT, rate=1.0) as audit:
        for x, _ in drawn(4):
            audit.check(x, infer(original, x))
    assert audit.audited == 4


@pytest.mark.parametrize("which", ["fast", "original"])
def test_dropout_that_is_left_on_is_refused(which: str) -> None:
    original = Classifier(1)
    original.drop = torch.nn.Dropout(0.5)
    fast = al.adapt(original.eval())
    model: Any = fast if which == "fast" else original
    model.drop.train()
    with pytest.raises(InputError, match="its dropout drop is in training mode"):
        al.audit(fast, original, max_loss=LIMIT)


@pytest.mark.parametrize("loss", [None, "x", [0.1], np.zeros(3), torch.zeros(2), 1j, torch.zeros(2).to_sparse()])
def test_a_loss_that_is_no_number(loss: Any) -> None:
    original = Classifier(1).eval()
    audit = al.audit(al.adapt(original), original, max_loss=LIMIT)
    with pytest.raises(CalibrationError, match="got a loss of"):
        audit.add(loss)
    assert audit.audited == 0


class PerStep(Classifier):
    """One logit for every timestep."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T]."""
        out: torch.Tensor = self.lstm(x)[0].sum(-1)
        return out


@pytest.mark.parametrize("rows", [1, 2])
def test_logits_of_timesteps_are_no_classes(rows: int) -> None:
    original = PerStep(1).eval()
    fast, inputs = al.adapt(original), [torch.randn(rows, 8, 3) for _ in range(CHECKED)]
    audit = al.audit(fast, original, max_loss=LIMIT, rate=1.0)
    for x in inputs[1:]:
        infer(fast, x)
    with pytest.raises(InputError, match="the last dimension may be time"):
        infer(fast, inputs[0])
    audit.close()
    named = al.losses.sign_disagreement
    with al.audit(fast, original, max_loss=LIMIT, rate=1.0, loss=named) as audit:
        for x in inputs:
            infer(fast, x)
    assert audit.audited == CHECKED


def test_classes_are_classes() -> None:
    original = Classifier(1).eval()
    fast = al.adapt(original)
    with al.audit(fast, original, max_loss=LIMIT, rate=1.0) as audit:
        for x, _ in drawn(CHECKED + 1):
            infer(fast, x)
    assert audit.audited == CHECKED + 1
