"""``audit``: a certificate that lives; in operation a random share of the calls is compared with the original model.

The loss against the original needs no labels, so the promise can be tested for as long as the model serves, on the
inputs that it meets. The evidence is an e-process: it may be looked at after every call, without a false alarm.
"""

from __future__ import annotations

import json
import math
import random
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from .. import files, losses
from ..codec import brief, is_number, is_whole
from ..errors import InputError
from ..files import FilePath
from ..losses import Loss, Sizes, as_loss
from ..model_io import RUNS, call, check_repeated, float_tensors
from ..model_io.attributes import tensors_in
from ..model_io.memory import memory_kept, put_back
from ..policies import Dense
from ..runtime.adapt import adaptable, adapted_lstms, lstms_of
from ..weights.fingerprint import surroundings_digest, weights_digest
from .audit_record import Begun, Fallback, digests_of, read_record
from .e_process import EProcess
from .guarantee import between

State = Literal["holding", "revoked"]

CHECKED = 16  # audited calls whose outputs the loss is checked by, as ``calibrate`` does
REPEATED = 2  # audited calls on which the original runs RUNS times, to see whether it repeats itself


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class AuditWarning(UserWarning):
    """An audit found that a model loses more than was promised."""


class Audit:
    """An audit that runs; made by ``audit``. Threads may share the audited model.

    Attributes:
        model: the audited one.
        limit: the mean loss that was promised.
        confidence: the promise of a model that keeps its limit is revoked with at most 1 - ``confidence``, ever.
        seen: calls so far.
        revocations: promises revoked so far; more than one only with ``fallbacks``, each for the policy of its time.
            The evidence is against the policy that serves now.
    """

    def __init__(
        self,
        model: nn.Module,
        original: nn.Module,
        loss: Loss,
        rate: float,
        confidence: float,
        begun: Begun,
        fallbacks: Sequence[Fallback],
        seed: int | None,
    ):
        self.model, self.limit, self.confidence, self.seen = model, begun.evidence.limit, confidence, begun.seen
        self._original, self._loss, self._rate, self._evidence = original, loss, rate, begun.evidence
        self._fallbacks, self._draw, self._lock = list(fallbacks), random.Random(seed).random, threading.Lock()
        self.revocations, self._policies = begun.revocations, begun.policies or digests_of(model, fallbacks)
        self._first: list[tuple[Any, Sizes | None]] = []  # outputs of the original, to check the loss by
        if self.revocations:
            self._fall_back()
        self._handle = model.register_forward_hook(_Listener(self), with_kwargs=True)

    def __enter__(self) -> Audit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the audit; the model serves on with the policies that it has now."""
        self._handle.remove()

    # ------------------------------------------------------------------------------------------------- answers

    @property
    def state(self) -> State:
        """Whether the promise holds as far as is known, or has been revoked."""
        return "revoked" if self._evidence.peak >= math.log(self.needed) else "holding"

    @property
    def evidence(self) -> float:
        """Against the promise: 1 says nothing, and ``needed`` or more revokes it."""
        return math.exp(min(self._evidence.log_evidence, 700.0))

    @property
    def needed(self) -> float:
        """The evidence that revokes the promise: 1 / (1 - ``confidence``)."""
        return 1 / (1 - self.confidence)

    @property
    def audited(self) -> int:
        """Calls that were compared with the original."""
        return self._evidence.count

    @property
    def mean_loss(self) -> float:
        """Of the audited calls."""
        return self._evidence.mean

    def __repr__(self) -> str:
        return (
            f"Audit({self.state}: {self._loss.name} {self.mean_loss:.4f} over {self.audited} of {self.seen} calls, "
            f"limit {self.limit:g}, evidence against it {self.evidence:.3g} of {self.needed:.3g})"
        )

    # ------------------------------------------------------------------------------------------------- evidence

    def check(self, inputs: Any, output: Any) -> None:
        """Take one call into account, which is compared with the original with probability ``rate``.

        Calls of the model do this by themselves. For a stream, end a segment (a sequence from its reset) with it.

        Args:
            inputs: of the original model, as ``calibrate`` takes them: a tuple holds several arguments.
            output: what the audited model made of them.

        Raises:
            CalibrationError: a loss outside [0, 1].
            InputError: the loss means nothing for the first outputs of the original, or the original gives others for
                the same inputs (dropout that is left on); the audit ends.
        """
        self._compare(lambda: call(self._original, inputs), output, inputs)

    def _compare(self, dense: Callable[[], Any], output: Any, inputs: Any) -> None:
        with self._lock:
            self.seen += 1
            chosen = self._draw() < self._rate
        if chosen and self.state == "holding":
            with torch.no_grad(), memory_kept(self._original):
                expected = dense()
                self._check_first(dense, expected, _sizes(self.model, inputs))
                self.add(self._loss.of(output, expected, None))

    def _check_first(self, dense: Callable[[], Any], expected: Any, sizes: Sizes | None) -> None:
        """End the audit if the original gives something else when it runs again, or the loss means nothing for it."""
        with self._lock:
            seen = len(self._first)
            if seen >= CHECKED:
                return
            self._first.append((expected, sizes))
            first = list(self._first)
            if len(first) == CHECKED:
                self._first[:] = [(None, None)] * CHECKED  # let go of the outputs
        try:
            for _ in range(RUNS - 1 if seen < REPEATED else 0):
                put_back(self._original)
                check_repeated(self._original, float_tensors(expected), float_tensors(dense()))
            if len(first) == CHECKED:
                known = [size for _, size in first if size is not None]
                self._loss.check([out for out, _ in first], known if len(known) == CHECKED else [])
        except InputError:
            self.close()
            raise

    def add(self, loss: float) -> None:
        """Take the loss of one more audited call into account, where the comparison was made elsewhere.

        Raises:
            CalibrationError: a loss outside [0, 1]; nothing is changed then.
        """
        value = self._loss.checked(loss)
        with self._lock:
            before, self._evidence = self.state, self._evidence.after(value)
            if before == "holding":
                self._revoke_if_due()

    def merge(self, other: Audit | Mapping[str, Any]) -> None:
        """Add what an audit found that ran elsewhere, in another process, on other calls.

        Evidence is of one policy. Where both have the same policy, their evidence becomes one. If the other has fallen
        back further, this one follows: it takes over the policy and the evidence against that, and warns. What the
        other found against a policy that is already revoked here counts no more, only its calls do.

        Args:
            other: the audit, or what its ``as_dict`` gave. Merge each once.

        Raises:
            InputError: another limit, confidence or loss, or other policies; nothing is changed then.
        """
        told = other.as_dict() if isinstance(other, Audit) else other
        begun = read_record(told, self._loss, self.limit, self.confidence, self._policies)
        with self._lock:
            self.seen += begun.seen
            if begun.revocations > self.revocations:
                self.revocations, self._evidence = begun.revocations, begun.evidence
                self._fall_back()
                _warn(self, "an audit that was merged has found more", stacklevel=3)
            elif begun.revocations == self.revocations:
                before, merged = self.state, self._evidence.merged(begun.evidence)
                self._evidence = replace(merged, peak=max(merged.peak, self._evidence.peak))
                if before == "holding":
                    self._revoke_if_due()

    def _revoke_if_due(self) -> None:
        if self.state == "holding":
            return
        found = self._evidence
        self.revocations += 1
        self._fall_back()
        if self.revocations <= len(self._fallbacks):
            self._evidence = EProcess(self.limit)  # another policy, another promise
        _warn(self, f"{found.mean:.4f} over {found.count} audited calls")

    def _fall_back(self) -> None:
        """Set the policies that as many revocations lead to."""
        fallback = [*self._fallbacks, Dense()][self.revocations - 1]
        for name, lstm in adapted_lstms(self.model).items():
            policy = fallback[name] if isinstance(fallback, Mapping) else fallback
            lstm.plan = replace(lstm.plan, policy=policy, expected_rates=None)

    # ---------------------------------------------------------------------------------------------------- files

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with which ``audit(..., resume=...)`` goes on and ``merge`` adds."""
        return {
            "loss": self._loss.name,
            "confidence": self.confidence,
            "seen": self.seen,
            "revocations": self.revocations,
            "policies": list(self._policies),
            "evidence": self._evidence.as_dict(),
        }

    def save(self, path: FilePath) -> None:
        """Write ``as_dict`` as JSON, at once: after a failure the old file is still there.

        Raises:
            ModelFileError: the file cannot be written.
        """
        files.write(path, (json.dumps(self.as_dict(), indent=2) + "\n").encode())


def _warn(audit: Audit, found: str, *, stacklevel: int = 4) -> None:
    """Say that a promise is revoked, and what serves now."""
    more = audit.revocations <= len(audit._fallbacks)
    then = "The next more careful policy serves now" if more else "Nothing is skipped any more"
    warnings.warn(
        f"adaptive_lstm: the promise {audit._loss.name} <= {audit.limit:g} is revoked: {found}. {then}. Streams that "
        "are open, also after reset(), and stream pools keep the policy that they were opened with: open them anew. "
        "The inputs are unlike those of the calibration; calibrate again on recent ones.",
        AuditWarning,
        stacklevel=stacklevel,
    )


class _Listener:
    """The forward hook of an audited model. Copies of the model are not audited."""

    def __init__(self, audit: Audit | None = None):
        self._audit = audit

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._audit is not None and not model.training:
            original = self._audit._original
            self._audit._compare(lambda: original(*args, **kwargs), output, (args, kwargs))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Listener:
        return _Listener()

    def __reduce__(self) -> tuple[type[_Listener], tuple[()]]:
        return _Listener, ()


def audit(
    model: nn.Module,
    original: nn.Module,
    *,
    max_loss: float,
    confidence: float = 0.95,
    rate: float = 0.01,
    loss: Loss | Callable[[Any, Any, Any], float] = losses.disagreement,
    fallbacks: Sequence[Fallback] = (),
    resume: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Audit:
    """Audit a model in operation: run the original on a random share of the calls, and test what was promised.

    ::

        with al.audit(fast, original, max_loss=0.02, rate=0.01) as audit:
            serve(fast)
            print(audit.state, audit.evidence)

    While the mean loss is at most ``max_loss``, the promise is revoked with at most 1 - ``confidence``, over all time
    (``e_process.py``). Once it is revoked, the model falls back and warns: its next call has the other policy. Streams
    that are open keep theirs, also after ``reset()``, and so do the streams of a ``StreamPool`` that was made before,
    those too that join it later: open streams and pools anew. The cost is ``rate`` times that of the original. After 16
    audited calls the loss is checked as ``calibrate`` checks it: one that means nothing for such outputs ends the audit
    with an ``InputError`` of that call. So does an original that, run again on its first audited inputs, gives other
    outputs. A model that keeps a state between calls cannot be audited call by call; use ``Audit.check`` at the end of
    each sequence.

    Args:
        model: adapted and calibrated, in eval mode, skipping. It is watched by a forward hook until ``Audit.close``.
        original: the model that it was adapted from, unchanged.
        max_loss: the mean loss that was promised, in (0, 1).
        confidence: in (0.5, 1).
        rate: share of the calls that is audited, in (0, 1].
        loss: that of the certificate, as ``calibrate`` takes it; there are no targets in operation.
        fallbacks: policies to fall back to, one after another, the next more careful first; a policy for all LSTMs or
            one for each by module name. After the last, and by default, nothing is skipped.
        resume: what ``Audit.as_dict`` gave, to go on from there.
        seed: of the draw of the calls; None: a different draw in every process.

    Raises:
        InputError: another model, training mode, numbers out of range, something else than a loss, or evidence of
            another audit; nothing is changed then.
        PolicyError: a fallback that does not fit an LSTM.
    """
    loss = as_loss(loss)
    limit, confidence = between(max_loss, 0, "max_loss"), between(confidence, 0.5, "confidence")
    _check_rate(rate)
    if not (seed is None or is_whole(seed)):
        raise InputError(f"seed: got {brief(seed)}, expected a whole number, or None for another draw in every process")
    _check_models(model, original)
    _check_fallbacks(model, fallbacks)
    policies = digests_of(model, fallbacks)
    begun = Begun(EProcess(limit)) if resume is None else read_record(resume, loss, limit, confidence, policies)
    return Audit(model, original, loss, float(rate), confidence, begun, fallbacks, None if seed is None else int(seed))


def _sizes(model: nn.Module, inputs: Any) -> Sizes | None:
    """What a call was, if an input [B, T, ...] is what the audited LSTMs have just run."""
    ran = max([0, *(run.timesteps for lstm in lstms_of(model).values() if (run := lstm.last_run))])
    shapes = [tuple(x.shape) for x in tensors_in(inputs) if x.dim() == 3]
    return next((Sizes(steps, rows) for rows, steps, _ in shapes if rows * steps == ran), None)


def _check_rate(rate: Any) -> None:
    if not (is_number(rate) and 0 < rate <= 1):
        raise InputError(f"rate: got {brief(rate)}, expected a share of the calls, above 0 and at most 1")


def _check_models(model: nn.Module, original: Any) -> None:
    if not isinstance(original, nn.Module) or original is model:
        raise InputError("original: expected the model that this one was adapted from, another torch.nn.Module")
    lstms = adapted_lstms(model)
    theirs = adaptable(original)
    if original.training:
        raise InputError("original: it is in training mode; call .eval() on it first")
    for what, one in (("the audited model", model), ("original", original)):
        if on := [name for name, m in one.named_modules() if isinstance(m, _DROPOUT) and m.training and m.p > 0]:
            raise InputError(f"{what}: its dropout {', '.join(on[:5])} is in training mode; call .eval() on the model")
    if theirs.keys() != lstms.keys():
        raise InputError(f"original: it holds the LSTMs {sorted(theirs)}, the audited model {sorted(lstms)}")
    for name, lstm in lstms.items():
        if weights_digest(theirs[name]) != weights_digest(lstm):
            raise InputError(f"original: its LSTM {name!r} has other weights than the audited model")
    if surroundings_digest(original, theirs) != surroundings_digest(model, lstms):
        raise InputError("original: it has other weights around its LSTMs than the audited model")


def _check_fallbacks(model: nn.Module, fallbacks: Sequence[Fallback]) -> None:
    lstms = adapted_lstms(model)
    if not isinstance(fallbacks, Sequence):
        raise InputError(f"fallbacks: got {type(fallbacks).__name__}, expected a list of policies")
    for fallback in fallbacks:
        if isinstance(fallback, Mapping) and fallback.keys() != lstms.keys():
            raise InputError(f"fallbacks: got policies of {sorted(fallback)}, expected those of {sorted(lstms)}")
        for name, lstm in lstms.items():
            policy = fallback[name] if isinstance(fallback, Mapping) else fallback
            replace(lstm.plan, policy=policy).check(lstm.stack_shape)
