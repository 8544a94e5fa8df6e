"""``calibrate``: the cheapest policy whose loss is certified, or the proof that none was found.

Three disjoint splits of the sequences: ``fit`` (sensitivity, translators), ``search`` (which candidates), ``test`` (the
proof: Pareto testing, Laufer-Goldshtein et al., ICLR 2023; see ``risk.py``). The certificate holds for the model as it
is deployed: compressed, skipping, on this backend, against the original float32 model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from tqdm import tqdm

from . import risk
from .candidates import Candidate, Measured, Settings, check_families, default_families, fits, tracks
from .certificate import Certificate, certify
from .errors import CalibrationError, InputError, NonFiniteError
from .evaluate import Evaluator, Item, Outcome, original
from .losses import Loss, as_loss
from .measure import measure_sensitivities
from .monitor import Monitor, Range
from .policies import Delta, ExitInDepth, ExitInTime, Policy, bucket
from .runtime import AdaptiveLSTM
from .search import Scored, Search
from .sequences import Splits, fingerprint, fingerprint_of_all, pairs, refuse_shared, refuse_too_few, split
from .tap import adapted_lstms, call, first_tensor
from .translate import fit_translators

SENSITIVITY_SEQUENCES = 64  # of the fit split: more do not change the averages much, and each costs a backward pass


@dataclass(frozen=True, eq=False)
class Point:
    """A candidate of the frontier.

    ``settings``: its policies by module name; ``cost``: by the objective, as a share of the dense model's; ``macs``:
    share of multiply-accumulates left; ``search_risks`` per loss on the search split; ``test_risks`` and ``p_value`` if
    it was tested; ``certified``: whether it passed.
    """

    name: str
    settings: Settings
    cost: float
    macs: float
    search_risks: tuple[float, ...]
    test_risks: tuple[float, ...] | None = None
    p_value: float | None = None
    certified: bool = False


@dataclass(frozen=True, eq=False)
class Calibration:
    """What ``calibrate`` found.

    ``certified``: whether any candidate passed; ``frontier``: every candidate that was run on the whole search split,
    from the lowest cost up; ``certificate``: the record, of the dense model if nothing passed.
    """

    certified: bool
    settings: Settings
    frontier: tuple[Point, ...]
    certificate: Certificate
    ranges: Mapping[str, Mapping[str, Range]]

    @property
    def policy(self) -> Policy:
        """The chosen policy of a model with one LSTM; ``Dense()`` if none passed.

        Raises:
            InputError: the model holds several LSTMs; ``settings`` has one policy for each.
        """
        if len(self.settings) > 1:
            raise InputError(f"the model holds {len(self.settings)} LSTMs: use .settings, which has a policy for each")
        return next(iter(self.settings.values()))

    def apply(self, model: nn.Module) -> nn.Module:
        """Set the chosen policies in place, with a monitor each, and return the model.

        Raises:
            InputError: the model does not hold the LSTMs that were calibrated.
            PolicyError: a policy does not fit; nothing is changed then.
        """
        lstms = adapted_lstms(model)
        if set(lstms) != set(self.settings):
            raise InputError(f"the model holds the LSTMs {sorted(lstms)}, calibrated were {sorted(self.settings)}")
        for name, lstm in lstms.items():
            self.settings[name].check(lstm.stack_shape)
        for name, lstm in lstms.items():
            lstm.policy = self.settings[name]
            lstm.monitor = Monitor(self.ranges[name]) if self.certified else None
        return model


def calibrate(
    model: nn.Module,
    sequences: Iterable[Any] | Splits[Any],
    *,
    loss: Loss | Callable[[Any, Any, Any], float] | Sequence[Loss | Callable[[Any, Any, Any], float]],
    max_loss: float | Sequence[float],
    confidence: float,
    policies: Sequence[Policy] | None = None,
    objective: Literal["latency", "macs"] = "latency",
    conditional: bool = False,
    shares: tuple[float, float, float] = (0.25, 0.25, 0.5),
    output: Callable[[Any], torch.Tensor] = first_tensor,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    """Choose the cheapest policy whose loss on new sequences is certified.

    With probability ``confidence`` over the draw of the sequences, the mean loss of the chosen policy on new sequences
    drawn like these is at most ``max_loss``. It promises nothing about sequences drawn otherwise.

    Args:
        model: an adapted model in eval mode, compressed as it will be deployed. Its policies are replaced only by
            ``Calibration.apply``.
        sequences: inputs of the model, or ``(inputs, target)`` pairs; several arguments as one tuple in such a pair.
            One sequence each: they are the unit that the certificate counts. Or ``Splits`` of them, where sequences
            belong together (by speaker, by device) and must not be torn apart.
        loss: from ``adaptive_lstm.losses``, or a function of (output, dense_output, target) to a float in [0, 1];
            several for several promises at once.
        max_loss: the largest mean loss that is acceptable, in (0, 1); one for each loss.
        confidence: how sure to be, in (0.5, 1), for example 0.95.
        policies: families to search; default: all that apply without knowing the head. Give exits the model's head:
            ``ExitInTime(head=model.fc)``.
        objective: what to make cheap: predicted seconds on this machine, or multiply-accumulates.
        conditional: promise the limit also for those that leave first, at every time bucket of ``ExitInTime``
            (accumulated gap control, Ringel et al., ICML 2024), not only on average.
        shares: of the fit, search and test split.
        output: picks the tensor that sensitivity is measured for from what the model returns.
        seed: of the split and of the random projections.
        progress: show a bar.

    Raises:
        CalibrationError: too few sequences (the message says how many are needed), equal ones, or a loss outside
            [0, 1].
        NonFiniteError: the model returns NaN or infinity.
        InputError, PolicyError, UnsupportedError: arguments that do not fit; before anything runs.
    """
    begun = time.perf_counter()
    lstms = adapted_lstms(model)
    losses, limits = _losses(loss, max_loss)
    if objective not in ("latency", "macs"):
        raise InputError(f"objective: got {objective!r}, expected 'latency' or 'macs'")
    shapes = {name: lstm.stack_shape for name, lstm in lstms.items()}
    families = default_families(shapes) if policies is None else list(policies)
    check_families(families, shapes)
    if conditional and not any(isinstance(f, ExitInTime) for f in families):
        raise InputError("conditional=True controls exits in time, expected an ExitInTime among the policies")
    parts_of, share = _splits(sequences, shares, seed)
    prints = [[fingerprint(inputs) for inputs, _ in part] for part in (parts_of.fit, parts_of.search, parts_of.test)]
    refuse_shared([p for part in prints for p in part])
    # Bounded losses need more sequences than binary ones; which a loss is, the first dense output tells.
    with original(lstms), torch.no_grad():
        first = call(model, parts_of.test[0][0])
    binary = [bool(one.binary(first)) for one in losses]
    refuse_too_few(len(parts_of.test), limits, confidence, binary, share)

    with tqdm(desc="calibrating", unit="run", disable=not progress) as bar:
        items = _items(model, lstms, parts_of, bar)
        if not all(
            bool(one.binary(item.dense)) for one, b in zip(losses, binary, strict=True) if b for item in items.test
        ):
            binary = [False] * len(losses)
            refuse_too_few(len(items.test), limits, confidence, binary, share)
        bar.set_postfix_str("measuring")
        with original(lstms):
            measured = _measured(model, lstms, items.fit, families, output, seed)
        evaluator = Evaluator(model, lstms, losses, bar.update)
        names = list(lstms)

        def run(candidate: Candidate, n: int) -> Outcome:
            bar.set_postfix_str(str(candidate)[:60])
            return evaluator.run(candidate.settings(names), items.search[:n])

        search = Search(run, limits, len(items.search), lambda c: fits(c, shapes), objective == "macs")
        scored = search.everything(tracks(families, measured, conditional))
        dense_cost = search.cost(scored[0])
        front = [s for s in search.front(scored) if search.cost(s) < dense_cost and s.candidate.choices]
        tested: dict[tuple[tuple[str, float], ...], tuple[Outcome, float]] = {}

        def p_values() -> Iterable[float]:
            for s in front:
                bar.set_postfix_str(f"testing {s.candidate}"[:60])
                outcome = evaluator.run(s.candidate.settings(names), items.test)
                p = _p_value(outcome, s.candidate, limits, binary, conditional)
                tested[s.candidate.key] = (outcome, p)
                yield p

        passed = risk.fixed_sequence(p_values(), confidence)
    accepted = front[:passed]
    chosen = min(accepted, key=search.cost).candidate if accepted else Candidate()
    settings = chosen.settings(names)
    outcome = tested[chosen.key][0] if accepted else None
    frontier = tuple(
        sorted(
            (_point(s, search, dense_cost, names, tested, {a.candidate.key for a in accepted}) for s in scored),
            key=lambda p: p.cost,
        )
    )
    certificate = certify(
        model=model,
        lstms=lstms,
        settings=settings,
        chosen=str(chosen),
        losses=[one.name for one in losses],
        limits=limits,
        binary=binary,
        confidence=confidence,
        conditional=conditional,
        sizes=(len(items.fit), len(items.search), len(items.test)),
        fingerprints=tuple(fingerprint_of_all(p) for p in prints),
        outcome=outcome,
        p_value=tested[chosen.key][1] if accepted else None,
        samples=[item.inputs for item in items.test[:8]],
        candidates=len(scored),
        tested=len(tested),
        seconds=time.perf_counter() - begun,
    )
    return Calibration(bool(accepted), settings, frontier, certificate, _ranges(names, outcome))


def _losses(loss: Any, max_loss: Any) -> tuple[list[Loss], list[float]]:
    several = isinstance(loss, list | tuple)
    losses = [as_loss(one) for one in (loss if several else [loss])]
    limits = [float(m) for m in (max_loss if isinstance(max_loss, list | tuple) else [max_loss])]
    if len(losses) != len(limits) or not losses:
        raise InputError(f"got {len(losses)} losses and {len(limits)} values of max_loss, expected one for each")
    for m in limits:
        if not 0 < m < 1:
            raise InputError(f"max_loss: got {m}, expected a number strictly between 0 and 1")
    return losses, limits


def _splits(sequences: Any, shares: tuple[float, float, float], seed: int) -> tuple[Splits[tuple[Any, Any]], float]:
    """The splits as (inputs, target) pairs, and the share of the test split."""
    if isinstance(sequences, Splits):
        given = Splits(pairs(sequences.fit), pairs(sequences.search), pairs(sequences.test))
        return given, len(given.test) / (len(given.fit) + len(given.search) + len(given.test))
    everything = pairs(sequences)
    if len(everything) < 3:
        raise CalibrationError(f"sequences: got {len(everything)}, expected a few hundred; see risk.needed")
    index = split(len(everything), shares, seed)
    made = Splits(*([everything[i] for i in part] for part in (index.fit, index.search, index.test)))
    return made, shares[2] / sum(shares)


def _items(
    model: nn.Module, lstms: Mapping[str, AdaptiveLSTM], parts_of: Splits[tuple[Any, Any]], bar: Any
) -> Splits[Item]:
    """The sequences with the outputs of the original model."""

    def run(pair: tuple[Any, Any]) -> Item:
        dense = call(model, pair[0])
        if not bool(torch.isfinite(first_tensor(dense)).all()):
            raise NonFiniteError("the original model returns NaN or infinity for a sequence; clean the inputs")
        bar.update()
        return Item(pair[0], pair[1], dense)

    with original(lstms), torch.no_grad():
        fit = [Item(inputs, target, None) for inputs, target in parts_of.fit]
        return Splits(fit, [run(p) for p in parts_of.search], [run(p) for p in parts_of.test])


def _measured(
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    fit: Sequence[Item],
    families: Sequence[Policy],
    output: Callable[[Any], torch.Tensor],
    seed: int,
) -> Measured:
    inputs = [item.inputs for item in fit]
    sensitivities = {}
    if any(isinstance(f, Delta) for f in families):
        few = inputs[:SENSITIVITY_SEQUENCES]
        sensitivities = measure_sensitivities(model, few, output=output, seed=seed)
    translators = {}
    if any(isinstance(f, ExitInTime | ExitInDepth) for f in families):
        translators = {name: fit_translators(model, inputs, lstm=name) for name in lstms}
    return Measured({name: lstm.stack_shape for name, lstm in lstms.items()}, sensitivities, translators)


def _p_value(
    outcome: Outcome, candidate: Candidate, limits: Sequence[float], binary: Sequence[bool], conditional: bool
) -> float:
    """Of "some risk is above its limit"."""
    exits = next((t for t, _ in candidate.choices if t.family == "time"), None) if conditional else None
    found = []
    for losses, limit, b in zip(outcome.losses.T, limits, binary, strict=True):
        found.append(risk.p_value(losses, limit, binary=b))
        if exits is not None:
            last = len(exits.starts) - 1
            halts = [
                bucket(exits.starts, max(0, h - 1)) if e else last
                for h, e in zip(outcome.halts, outcome.exits, strict=True)
            ]
            found += list(risk.conditional_p_values(losses, halts, limit, first=exits.opens, last=last, binary=b))
    return risk.joint_p_value(found)


def _point(
    s: Scored,
    search: Search,
    dense_cost: float,
    names: Sequence[str],
    tested: Mapping[tuple[tuple[str, float], ...], tuple[Outcome, float]],
    accepted: set[tuple[tuple[str, float], ...]],
) -> Point:
    outcome, p = tested.get(s.candidate.key, (None, None))
    return Point(
        name=str(s.candidate),
        settings=s.candidate.settings(names),
        cost=search.cost(s) / dense_cost,
        macs=s.outcome.work_left,
        search_risks=s.risks,
        test_risks=None if outcome is None else tuple(float(r) for r in outcome.losses.mean(0)),
        p_value=p,
        certified=s.candidate.key in accepted,
    )


def _ranges(names: Sequence[str], outcome: Outcome | None) -> dict[str, dict[str, Range]]:
    """What a monitor compares with."""
    if outcome is None:
        return {name: {} for name in names}
    rates = {"activity": outcome.activity, "ran": outcome.ran, "exits": outcome.exits}
    return {name: {rate: Range.of(values) for rate, values in rates.items()} for name in names}
