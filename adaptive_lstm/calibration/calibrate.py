"""``calibrate``: the cheapest policy whose loss is certified, or the answer that none was found.

Three disjoint splits of the sequences: ``fit`` (sensitivity, translators), ``search`` (which candidates, in which
order), ``test`` (the proof: Pareto testing, Laufer-Goldshtein et al., ICLR 2023; see ``risk.py``). The certificate
holds for the model as it is deployed: compressed, skipping, on this backend, against the original float32 model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from tqdm import tqdm

from ..analysis.fit_translators import fit_translators
from ..analysis.measure_sensitivity import measure_sensitivities
from ..errors import InputError
from ..losses import Loss
from ..model_io import first_tensor
from ..policies import Dense, Family, FitData, Policy, SkipTimesteps
from ..runtime.adapt import adapted_lstms
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.monitor import Range
from . import risk
from .candidates import Candidate, Key, fits, sweeps_of
from .certificate import certify
from .evaluation import Evaluator, Outcome, unskipped
from .families import check_families, default_families
from .guarantee import Guarantee
from .result import Calibration as Calibration
from .result import Point as Point
from .search import Scored, Search
from .splits import Splits, split_sequences

SENSITIVITY_SEQUENCES = 32  # of the fit split: more do not change the averages much, and each costs backward passes
PROBES = 2  # as many for each of them: what counts is the average over all
EXTREME = SkipTimesteps(x_share=1e6)  # holds whatever it may: any loss that can leave [0, 1] is likely to do so here


def calibrate(
    model: nn.Module,
    sequences: Iterable[Any] | Splits[Any],
    *,
    loss: Loss | Callable[[Any, Any, Any], float] | Sequence[Loss | Callable[[Any, Any, Any], float]],
    max_loss: float | Sequence[float],
    confidence: float,
    policies: Sequence[Family | type[Policy]] | None = None,
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
            belong together (by speaker, by device) and must not be torn apart; the order within each does not matter.
        loss: from ``adaptive_lstm.losses``, or a function of (output, dense_output, target) to a float in [0, 1];
            several for several promises at once.
        max_loss: the largest mean loss that is acceptable, in (0, 1); one for each loss.
        confidence: how sure to be, in (0.5, 1), for example 0.95.
        policies: families to search: ``Family(ExitInTime, head=model.fc)``, or a class of policies (``Delta``) for a
            family without fixed settings. Their strengths (thresholds, limits, translators) are what is searched for.
            Default: all that apply without knowing the head.
        objective: what to make cheap: predicted seconds on this machine, or multiply-accumulates.
        conditional: promise the limit also for those that leave first, at every time bucket of ``ExitInTime``
            (accumulated gap control, Ringel et al., ICML 2024), not only on average. Each sequence must then be one
            batch row.
        shares: of the fit, search and test split.
        output: picks the tensor that counts from what the model returns: sensitivity is measured for it, and it must
            be finite.
        seed: of the split and of the random projections.
        progress: show a bar.

    Raises:
        CalibrationError: too few sequences (the message says how many are needed), equal ones, or a loss outside
            [0, 1].
        NonFiniteError: the model returns NaN or infinity.
        InputError, PolicyError, UnsupportedError: arguments that do not fit; found on the first sequence at the latest.
    """
    begun = time.perf_counter()
    if isinstance(sequences, torch.Tensor):
        raise InputError(
            "sequences: got one tensor, expected a list with one input of the model for every sequence, for example "
            "list(x.split(1)) of a batch [N, T, I]"
        )
    lstms = adapted_lstms(model)
    if model.training:  # dropout around the LSTMs would make every output another one
        raise InputError("the model is in training mode; call .eval() on it first")
    guarantee = Guarantee.of(loss, max_loss, confidence, conditional)
    if objective not in ("latency", "macs"):
        raise InputError(f"objective: got {objective!r}, expected 'latency' or 'macs'")
    shapes = {name: lstm.stack_shape for name, lstm in lstms.items()}
    given = default_families(shapes) if policies is None else policies
    families = check_families(given, shapes, next(model.parameters()))
    if conditional and not any(f.kind.question == "time_exit" for f in families):
        raise InputError("conditional=True controls exits in time, expected an ExitInTime among the policies")
    splits, fingerprints = split_sequences(sequences, shares, seed)
    share = len(splits.test) / sum(len(part) for part in (splits.fit, splits.search, splits.test))

    with tqdm(desc="calibrating", unit="run", disable=not progress) as bar:
        evaluator = Evaluator(model, lstms, guarantee.losses, output, bar.update)
        # One sequence first: what is wrong with the model, the losses or the number of sequences shows here.
        first = evaluator.label(splits.search[:1], one_row=conditional)
        guarantee.on(first, len(splits.test), share)
        for policy in (Dense(), EXTREME):
            evaluator.run(dict.fromkeys(lstms, policy), first)
        search_items = first + evaluator.label(splits.search[1:], one_row=conditional)
        test_items = evaluator.label(splits.test, one_row=conditional)
        everything = search_items + test_items
        for one in guarantee.losses:
            one.check([item.dense for item in everything])
        guarantee = guarantee.on(everything, len(splits.test), share)
        bar.set_postfix_str("measuring")
        measured = _measured(model, lstms, [inputs for inputs, _ in splits.fit], families, output, seed)

        def run(candidate: Candidate, n: int) -> Outcome:
            bar.set_postfix_str(str(candidate)[:60])
            evaluate = evaluator.timed if objective == "latency" else evaluator.run
            return evaluate(candidate.settings(names), search_items[:n])

        names = list(lstms)
        search = Search(
            run,
            guarantee.limits,
            len(search_items),
            lambda c: fits(c, shapes),
            by_macs=objective == "macs",
            worst_early_exit_ratio=guarantee.worst_early_exit_ratio,
            certifiable_ratio=guarantee.certifiable_ratio,
        )
        scored = search.run(sweeps_of(families, measured, conditional=conditional))
        dense_cost = search.cost(scored[0])
        # A compressed model that skips nothing has something to prove too, and may be all that passes.
        compressed = any(lstm.replaced or not lstm.quantize.exact for lstm in lstms.values())
        front = search.to_test(
            [s for s in scored if search.cost(s) < dense_cost or (compressed and not s.candidate.choices)]
        )
        tested: dict[Key, tuple[Outcome, float]] = {}

        def p_values() -> Iterable[float]:
            for s in front:
                bar.set_postfix_str(f"testing {s.candidate}"[:60])
                outcome = evaluator.run(s.candidate.settings(names), test_items)
                p = guarantee.p_value(s.candidate, outcome)
                tested[s.candidate.key] = (outcome, p)
                yield p

        accepted = front[: risk.fixed_sequence(p_values(), guarantee.confidence)]
    chosen = min(accepted, key=search.cost).candidate if accepted else Candidate()
    outcome, p_value = tested[chosen.key] if accepted else (None, None)
    passed = {s.candidate.key for s in accepted}
    points = [_point(s, search.cost(s) / dense_cost, names, tested, passed) for s in scored]
    settings = chosen.settings(names)
    certificate = certify(
        model=model,
        lstms=lstms,
        settings=settings,
        chosen=str(chosen),
        guarantee=guarantee,
        fingerprints=fingerprints,
        outcome=outcome,
        p_value=p_value,
        samples=[item.inputs for item in test_items[:8]],
        candidates=len(scored),
        tested=len(tested),
        seconds=time.perf_counter() - begun,
    )
    ranges = {name: _ranges(outcome, name) for name in names}
    return Calibration(bool(accepted), settings, tuple(sorted(points, key=lambda p: p.cost)), certificate, ranges)


def _measured(
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    inputs: Sequence[Any],
    families: Sequence[Family],
    output: Callable[[Any], torch.Tensor],
    seed: int,
) -> FitData:
    """What the fit split tells about the model in float32, pruned if it is: thresholds and exits see its states."""
    sensitivities, translators = {}, {}
    with unskipped(lstms):
        if any("sensitivity" in f.kind.needs for f in families):
            few = inputs[:SENSITIVITY_SEQUENCES]
            sensitivities = measure_sensitivities(model, few, probes=PROBES, output=output, seed=seed)
        if any("translators" in f.kind.needs for f in families):
            translators = {name: fit_translators(model, inputs, lstm=name) for name in lstms}
    return FitData({name: lstm.stack_shape for name, lstm in lstms.items()}, sensitivities, translators)


def _point(
    s: Scored,
    cost: float,
    names: Sequence[str],
    tested: Mapping[Key, tuple[Outcome, float]],
    passed: set[Key],
) -> Point:
    outcome, p_value = tested.get(s.candidate.key, (None, None))
    return Point(
        name=str(s.candidate),
        settings=s.candidate.settings(names),
        cost=cost,
        macs=s.outcome.macs_share,
        search_risks=s.risks,
        test_risks=None if outcome is None else tuple(float(r) for r in outcome.losses.mean(0)),
        p_value=p_value,
        certified=s.candidate.key in passed,
    )


def _ranges(outcome: Outcome | None, name: str) -> dict[str, Range]:
    """What the monitor of an LSTM compares with."""
    if outcome is None or not len(outcome.rates[name]):
        return {}
    return {
        rate: Range.of(values) for rate, values in zip(("activity", "ran", "exits"), outcome.rates[name].T, strict=True)
    }
