"""The record of a calibration: what was guaranteed, on which data, for which model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from torch import nn

from .. import bench, codec, strict_json
from ..codec import short_repr
from ..errors import InputError
from ..execution.backend import backend_info
from ..model_io.memory import changed, put_back
from ..runtime.adapt import adapted_lstms
from ..runtime.lstm import AdaptiveLSTM
from ..weights.fingerprint import model_digest, surroundings_digest
from . import risk
from .candidates import Settings
from .constants import constants_of
from .evaluation import Outcome
from .guarantee import Guarantee
from .input_digest import fingerprint_of_all
from .splits import Splits
from .time_share import TimeShare
from .time_words import in_words

NOTHING = "dense"  # the name of the candidate that skips nothing
# Certified with ``forward``: a stream may also exit at its very last timestep (see ``Stream``).
ASSUMPTION = (
    "The sequences met in use are drawn independently from the same distribution as those of the test split; nothing "
    "is promised for others, nor for single sequences."
)


@short_repr
@dataclass(frozen=True)
class Certificate:
    """The record of a calibration, plain data; ``to_json`` writes it.

    Attributes:
        certified: whether a policy passed.
        policy: the chosen policy in words; "dense" if none passed.
        policy_digest: SHA-256 of the settings of the chosen policies; None if one holds Python code.
        losses: per loss its ``name``, ``limit`` and ``test`` ("binomial" or "wsr"); if a policy passed, also ``mean``,
            on the test split, and ``bound``, an upper confidence bound for the chosen policy taken alone.
        confidence: of the whole statement.
        p_value: of the chosen policy, for all losses together; None if none passed.
        conditional: whether the limits also hold for the sequences that exit first.
        sequences: per split ``count``, and ``sha256``, the fingerprint of its inputs.
        savings: what remains, as shares of the same compressed model with nothing skipped: ``macs``,
            multiply-accumulates on the test split; ``time``, measured on a few sequences of the search split, and
            ``time_quartiles``. If something is skipped, also what the measurement holds for: ``use``, ``threads``,
            ``isa`` and ``cpu``.
        candidates: ``searched``, how many ran on the whole search split; ``tested``, how many on the test split.
        weights: SHA-256 of the LSTMs' parameters.
        surroundings: SHA-256 of all other parameters and persistent buffers of the model.
        precision: of every LSTM in words, by module name.
        quantization: SHA-256 of all settings of quantization and of replaced weights.
        backend: ``name``, ``isa`` and ``threads`` of what executed.
        versions: of adaptive-lstm, torch and numpy.
        assumption: what the statement rests on.
        made: when, UTC.
        seconds: that finding the policy took.
        finalists: of a search by time: ``kept_limits``, how many candidates kept all limits on the search split;
            ``timed``, how many of them were timed; ``fastest``, the fields of the best ``TimeShare``, None if none was
            timed; ``out_of_time``, whether ``seconds`` ended the timing. None if none kept the limits, and in a search
            by multiply-accumulates.
        more: where nothing that skips passed and testing ended with a ``policy`` that lost less than the limits: its
            mean ``losses``, and how many sequences would certify them, in the ``test`` split and ``sequences`` in all.
        constants: shape and SHA-256 of what the model holds elsewhere and no call changed, by where: buffers that are
            not saved, tensors and arrays in attributes, ``batch_first`` of every LSTM. None: not recorded.
    """

    certified: bool
    policy: str
    policy_digest: str | None
    losses: tuple[Mapping[str, Any], ...]
    confidence: float
    p_value: float | None
    conditional: bool
    sequences: Mapping[str, Mapping[str, Any]]
    savings: Mapping[str, Any]
    candidates: Mapping[str, int]
    weights: str
    surroundings: str
    precision: Mapping[str, str]
    quantization: str
    backend: Mapping[str, Any]
    versions: Mapping[str, str]
    assumption: str
    made: str
    seconds: float
    finalists: Mapping[str, Any] | None = None
    more: Mapping[str, Any] | None = None
    constants: Mapping[str, str] | None = None

    def to_json(self) -> str:
        """As JSON, indented."""
        return json.dumps(asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> Certificate:
        """Read what ``to_json`` wrote.

        Raises:
            InputError: the text is something else.
        """
        try:
            values = strict_json.loads(text, codec.MAX_ITEMS)
            certificate = Certificate(**values | {"losses": tuple(values["losses"])})
            if not all(isinstance(one, str) for one in (certificate.constants or {}).values()):
                raise TypeError("constants")
            str(certificate), certificate.to_json()  # what it is read for must work
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"got no certificate, expected what to_json() writes: {error!r:.200}") from error
        return certificate

    def __str__(self) -> str:
        if not self.certified:
            limits = ", ".join(f"{one['name']} <= {one['limit']:g}" for one in self.losses)
            text = f"not certified: no policy passed {limits} at confidence {self.confidence:g}; nothing is skipped"
            return "\n".join([text, *self._fastest(), *self._more()])
        lines = [f"certified at confidence {self.confidence:g}: {self.policy}"]
        lines += [
            f"  {one['name']}: {one['mean']:.4f} on {self.sequences['test']['count']} test sequences, limit "
            f"{one['limit']:g}, p = {self.p_value:.2g}"
            for one in self.losses
        ]
        lines.append(f"  multiply-accumulates left: {self.savings['macs']:.0%}")
        if self.policy != NOTHING:
            lines.append(f"  {self._time_share()}")
        else:
            lines += ["  nothing is skipped", *self._fastest(), *self._more()]
        return "\n".join(lines)

    def _time_share(self) -> str:
        """What was measured of the chosen policies, in words."""
        low, high = self.savings["time_quartiles"]
        share = bench.Ratio(self.savings["time"], low, high, bench.MIN_ROUNDS)
        return in_words(share, ", ".join(f"{self.savings[name]}" for name in ("use", "isa") if name in self.savings))

    def _fastest(self) -> list[str]:
        """Why a search by time skips nothing, in lines; none if it was not by time, or nothing kept the limits."""
        if not self.finalists:
            return []
        kept, timed, share = (self.finalists[name] for name in ("kept_limits", "timed", "fastest"))
        lines = [f"  {kept} candidates that skip kept the limits in the search, and {timed} of them were timed"]
        if share is not None:
            fastest = bench.Ratio(share["median"], share["p25"], share["p75"], bench.MIN_ROUNDS)
            lines.append(f"  the fastest of these: {in_words(fastest)}")
        if self.finalists.get("out_of_time"):
            when = "before all finalists were" if timed else "before any candidate was"
            lines.append(f"  the time that seconds= allows ended {when} timed: give more seconds")
        return lines

    def _more(self) -> list[str]:
        """How many sequences would have done, in a line; none if that is not known, or nothing more was wanted."""
        if not self.more:
            return []
        losses = ", ".join(
            f"{one['name']} {mean:.4f}" for one, mean in zip(self.losses, self.more["losses"], strict=True)
        )
        return [
            f"  give more sequences: {self.more['policy']} lost {losses} on {self.sequences['test']['count']} test "
            f"sequences, too few to tell; about {self.more['test']} ({self.more['sequences']} in all) would do"
        ]


def policy_digest(settings: Settings) -> str | None:
    """SHA-256 of the policies of a model's LSTMs by module name; None if one holds Python code, which has no digest."""
    try:
        return codec.digest(settings)
    except InputError:
        return None


def quantization_digest(lstms: Mapping[str, AdaptiveLSTM]) -> str:
    """SHA-256 of the precisions and replaced weights of a model's LSTMs by module name."""
    return codec.digest({name: (m.quantize, m.replaced and m.replaced.digest()) for name, m in lstms.items()})


def precision_of(lstms: Mapping[str, AdaptiveLSTM]) -> dict[str, str]:
    """Precision of every LSTM, and whether it executes weights that were fitted: pruned, or rounded so."""
    return {
        name: lstm.quantize.precision + (", fitted weights" if lstm.replaced else "") for name, lstm in lstms.items()
    }


def make_certificate(
    model: nn.Module,
    policy: str,
    settings: Settings,
    guarantee: Guarantee,
    fingerprints: Splits[str],
    *,
    outcome: Outcome | None,
    p_value: float | None,
    time: TimeShare | None,
    finalists: Mapping[str, Any] | None,
    candidates: Mapping[str, int],
    seconds: float,
    more: Mapping[str, Any] | None,
) -> Certificate:
    """Write the record.

    Args:
        model: the model that was calibrated.
        policy: the chosen candidate, for people.
        settings: the policies of that candidate, by module name.
        guarantee: what was to be certified.
        fingerprints: of the inputs of every split.
        outcome: of the chosen candidate on the test split; None if none passed.
        p_value: of the chosen candidate, or None.
        time: of the chosen policies; None if nothing is skipped.
        finalists: what ``Certificate.finalists`` holds.
        candidates: how many were searched and tested.
        seconds: that finding the policy took.
        more: what ``Certificate.more`` holds.
    """
    lstms, info = adapted_lstms(model), backend_info()
    put_back(model)  # what it remembers in buffers counts as it will be found
    return Certificate(
        certified=outcome is not None,
        policy=policy,
        policy_digest=policy_digest(settings),
        losses=tuple(_losses(guarantee, outcome)),
        confidence=guarantee.confidence,
        p_value=p_value,
        conditional=guarantee.conditional,
        sequences={
            name: {"count": len(part), "sha256": fingerprint_of_all(part)} for name, part in vars(fingerprints).items()
        },
        savings={"macs": 1.0 if outcome is None else outcome.macs_share, **_time_saved(time)},
        candidates=dict(candidates),
        weights=model_digest(lstms),
        surroundings=surroundings_digest(model, lstms),
        precision=precision_of(lstms),
        quantization=quantization_digest(lstms),
        backend={"name": info.backend, "isa": info.isa, "threads": info.threads},
        versions={name: version(name) for name in ("adaptive-lstm", "torch", "numpy")},
        assumption=ASSUMPTION,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        finalists=finalists,
        more=more,
        constants=constants_of(model, lstms, changed(model)),
    )


def _time_saved(time: TimeShare | None) -> dict[str, Any]:
    """What ``Certificate.savings`` holds of the time."""
    if time is None:
        return {"time": 1.0, "time_quartiles": [1.0, 1.0]}
    where = {name: getattr(time, name) for name in ("use", "threads", "isa", "cpu")}
    return {"time": time.median, "time_quartiles": [time.p25, time.p75], **where}


def _losses(guarantee: Guarantee, outcome: Outcome | None) -> Iterator[dict[str, Any]]:
    """What ``Certificate.losses`` holds."""
    for i, (loss, limit, b) in enumerate(zip(guarantee.losses, guarantee.limits, guarantee.binary, strict=True)):
        one: dict[str, Any] = {"name": loss.name, "limit": limit, "test": "binomial" if b else "wsr"}
        if outcome is not None:
            values = outcome.losses[:, i]
            one |= {"mean": float(values.mean()), "bound": risk.upper_bound(values, guarantee.confidence, binary=b)}
        yield one
