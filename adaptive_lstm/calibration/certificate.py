"""The record of a calibration: what was promised, on which data, for which artefact."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from .. import bench
from ..errors import InputError
from ..execution.backend import backend_info
from ..model_io import call, copied
from ..policies import Dense
from ..runtime.adapt import adapted_lstms
from ..runtime.lstm import AdaptiveLSTM
from ..weights.fingerprint import model_digest, quantization_digest
from . import risk
from .candidates import Settings
from .evaluation import Outcome
from .guarantee import Guarantee
from .splits import Splits, fingerprint_of_all

# The promise is made with ``forward``: a stream may also leave at its very last timestep (see ``Stream``).
ASSUMPTION = (
    "The sequences met in use are drawn independently from the same distribution as those of the test split; nothing "
    "is promised for others, nor for single sequences."
)

TIMING_ROUNDS = 15  # side by side, of the chosen policy and of none


@dataclass(frozen=True)
class Certificate:
    """Plain data; ``to_json`` writes it.

    ``certified``: whether a policy passed. ``policy``: which. ``losses``: per loss its name, limit, test ("binomial" or
    "wsr"), mean on the test split and an upper confidence bound of the chosen policy taken alone. ``confidence``: of
    the whole statement; ``p_value`` of the chosen policy, for all losses together. ``sequences``: per split their
    number and the fingerprint of their inputs. ``savings``: ``macs``, multiply-accumulates left on the test split, and
    ``time``, seconds of the whole model left on a few of its sequences, with quartiles; shares of what the same
    compressed model takes when nothing is skipped. ``candidates``: how many were run on the whole search split, and how
    many tested. ``weights``: fingerprint of the LSTMs' parameters. ``precision``: by module name;
    ``quantization``: fingerprint of all its settings and of replaced weights. ``seconds``: what
    finding the policy took.
    """

    certified: bool
    policy: str
    losses: tuple[Mapping[str, Any], ...]
    confidence: float
    p_value: float | None
    conditional: bool
    sequences: Mapping[str, Mapping[str, Any]]
    savings: Mapping[str, Any]
    candidates: Mapping[str, int]
    weights: str
    precision: Mapping[str, str]
    quantization: str
    backend: Mapping[str, Any]
    versions: Mapping[str, str]
    assumption: str
    made: str
    seconds: float

    def to_json(self) -> str:
        """As JSON, indented."""
        return json.dumps(asdict(self), indent=2)

    @staticmethod
    def from_json(text: str) -> Certificate:
        """What ``to_json`` has written.

        Raises:
            InputError: it is no such text.
        """
        try:
            values = json.loads(text)
            certificate = Certificate(**values | {"losses": tuple(values["losses"])})
            str(certificate), certificate.to_json()  # what it is read for must work
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"got no certificate, expected what to_json() writes: {error!r:.200}") from error
        return certificate

    def __str__(self) -> str:
        if not self.certified:
            limits = ", ".join(f"{one['name']} <= {one['limit']:g}" for one in self.losses)
            return f"not certified: no policy passed {limits} at confidence {self.confidence:g}; nothing is skipped"
        lines = [f"certified at confidence {self.confidence:g}: {self.policy}"]
        lines += [
            f"  {one['name']}: {one['mean']:.4f} on {self.sequences['test']['count']} test sequences, limit "
            f"{one['limit']:g}, p = {self.p_value:.2g}"
            for one in self.losses
        ]
        share = self.savings["macs"]
        lines.append(f"  multiply-accumulates left: {share:.0%}; time of the model left: {self.savings['time']:.0%}")
        return "\n".join(lines)


def precision_of(lstms: Mapping[str, AdaptiveLSTM]) -> dict[str, str]:
    """Precision of every LSTM, and whether it executes weights that were fitted: pruned, or rounded so."""
    return {
        name: lstm.quantize.precision + (", fitted weights" if lstm.replaced else "") for name, lstm in lstms.items()
    }


def certify(
    *,
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    settings: Settings,
    chosen: str,
    guarantee: Guarantee,
    fingerprints: Splits[str],
    outcome: Outcome | None,
    p_value: float | None,
    samples: Sequence[Any],
    candidates: int,
    tested: int,
    seconds: float,
) -> Certificate:
    """Put the record together; ``outcome`` of the chosen policy on the test split, None if nothing passed."""
    described = []
    for i, (loss, limit, b) in enumerate(zip(guarantee.losses, guarantee.limits, guarantee.binary, strict=True)):
        one: dict[str, Any] = {"name": loss.name, "limit": limit, "test": "binomial" if b else "wsr"}
        if outcome is not None:
            values = outcome.losses[:, i]
            one |= {"mean": float(values.mean()), "bound": risk.upper_bound(values, guarantee.confidence, binary=b)}
        described.append(one)
    info = backend_info()
    return Certificate(
        certified=outcome is not None,
        policy=chosen,
        losses=tuple(described),
        confidence=guarantee.confidence,
        p_value=p_value,
        conditional=guarantee.conditional,
        sequences={
            name: {"count": len(part), "sha256": fingerprint_of_all(part)} for name, part in vars(fingerprints).items()
        },
        savings=_savings(model, lstms, settings, outcome, samples),
        candidates={"searched": candidates, "tested": tested},
        weights=model_digest(lstms),
        precision=precision_of(lstms),
        quantization=quantization_digest(lstms),
        backend={"name": info.backend, "isa": info.isa, "threads": info.threads},
        versions={name: version(name) for name in ("adaptive-lstm", "torch", "numpy")},
        assumption=ASSUMPTION,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
    )


def _savings(
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    settings: Settings,
    outcome: Outcome | None,
    samples: Sequence[Any],
) -> dict[str, Any]:
    """What is left of the work and of the model's time, measured side by side on a few test sequences."""
    if outcome is None:
        return {"macs": 1.0, "time": 1.0, "time_quartiles": [1.0, 1.0]}

    def contender(with_settings: Settings) -> Callable[[], None]:
        one = copied(model)
        for name, lstm in adapted_lstms(one).items():
            lstm.policy = with_settings[name]

        def run() -> None:
            with torch.no_grad():
                for sample in samples:
                    call(one, sample)

        return run

    contenders = {"chosen": contender(settings), "dense": contender(dict.fromkeys(lstms, Dense()))}
    timings = bench.measure(contenders, repeats=TIMING_ROUNDS, warmup=1)
    ratio = bench.ratio(timings["chosen"], timings["dense"])
    return {"macs": outcome.macs_share, "time": ratio.median, "time_quartiles": [ratio.p25, ratio.p75]}
