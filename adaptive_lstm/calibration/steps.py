"""The steps of a calibration: prepare, measure, search, prove, record. ``calibrate`` takes them in this order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ..analysis.fit_translators import fit_translators
from ..analysis.measure_forgetting import measure_forgetting
from ..analysis.measure_sensitivity import measure_sensitivities
from ..model_io import check_repeatable
from ..policies import Dense, Family, FitData, SkipTimesteps
from ..progress import Progress
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.monitor import RATES, Range
from ..types import StackShape
from . import risk
from .candidates import Candidate, Key, fits, sweeps_of
from .certificate import make_certificate
from .evaluation import Evaluator, LabelledInput, Outcome, original, unskipped
from .guarantee import Guarantee
from .pareto import MAX_TESTED
from .result import Calibration, Point
from .search import Scored, Search
from .splits import Splits
from .time_budget import TimeBudget
from .time_share import TIMING_ROUNDS, Stopwatch, TimeShare
from .workload import Use

SENSITIVITY_SEQUENCES = 32  # of the fit split: more do not change the averages much, and each costs backward passes
PROBES = 2  # random projections of each: only the average over all is used
BACKWARD = 4  # runs that last as long as one with a backward pass, about
FIRST = 4  # sequences by which the time of the others is judged
EXTREME = SkipTimesteps(x_share=1e6)  # holds all that it may: a loss that can exceed [0, 1] is likely to do so here
REPEATED = 8  # sequences that the model runs on twice, to see whether it repeats itself
MAX_FINALISTS = 24  # candidates that are timed
TIMED_SEQUENCES = 12  # of the search split, on which policies are timed


@dataclass(frozen=True, eq=False)
class Run:
    """What a calibration works on.

    Attributes:
        evaluator: runs the model, and holds it and its LSTMs.
        guarantee: what is to be certified.
        by_macs: whether multiply-accumulates are the cost, instead of predicted seconds.
        fit: inputs of the fit split.
        search: the search split, with the outputs of the original model.
        test: the test split, likewise.
        seconds: of one run of the original model.
        bar: shows what is done.
    """

    evaluator: Evaluator
    guarantee: Guarantee
    by_macs: bool
    fit: list[Any]
    search: list[LabelledInput]
    test: list[LabelledInput]
    seconds: float
    bar: Progress

    @property
    def names(self) -> list[str]:
        """Module names of the LSTMs."""
        return list(self.evaluator.lstms)

    @property
    def shapes(self) -> dict[str, StackShape]:
        """Of every LSTM that can skip something, which cells cannot."""
        return skipping_shapes(self.evaluator.lstms)

    @property
    def compressed(self) -> bool:
        """Whether an LSTM is quantized or has replaced weights."""
        return any(lstm.replaced or not lstm.quantize.exact for lstm in self.evaluator.lstms.values())

    def stopwatch(self, use: Use) -> Stopwatch:
        """Times policies on a few inputs of the search split."""
        return Stopwatch(self.evaluator.model, [one.inputs for one in self.search[:TIMED_SEQUENCES]], use)


@dataclass(frozen=True, eq=False)
class Found:
    """What the search found.

    Attributes:
        scored: every candidate that ran on the whole search split.
        costs: theirs by key, as a share of the dense one's.
        front: those to test, in this order.
        ended_early: whether the time was over before all candidates ran.
    """

    scored: list[Scored]
    costs: Mapping[Key, float]
    front: list[Scored]
    ended_early: bool = False


@dataclass(frozen=True, eq=False)
class Timed:
    """What the clock said of a search.

    Attributes:
        found: with measured costs in place of predicted ones, and those to test by them.
        times: of the finalists, by key; empty where multiply-accumulates are the cost.
        kept_limits: how many candidates that skip something kept all limits on the search split.
        out_of_time: whether the time was over before all were timed that should have been.
    """

    found: Found
    times: Mapping[Key, TimeShare]
    kept_limits: int
    out_of_time: bool = False

    @property
    def summary(self) -> dict[str, Any] | None:
        """For the certificate: how many kept the limits and were timed, and the fastest; None: none was to be timed."""
        if not (self.kept_limits or self.out_of_time):
            return None
        fastest = min(self.times.values(), key=lambda share: share.p75, default=None)
        return {
            "kept_limits": self.kept_limits,
            "timed": len(self.times),
            "fastest": None if fastest is None else fastest.as_dict(),
            "out_of_time": self.out_of_time,
        }


@dataclass(frozen=True, eq=False)
class Tested:
    """A candidate on the test split: what it did, and the p-value of its loss being above the limit."""

    candidate: Candidate
    outcome: Outcome
    p_value: float


@dataclass(frozen=True, eq=False)
class Proof:
    """What the test split proved.

    Attributes:
        tested: the candidates that were tested, by key.
        passed: those that passed.
        chosen: the cheapest that passed; None if none did.
        failed: the one that ended the testing; None if all passed.
    """

    tested: Mapping[Key, Tested]
    passed: frozenset[Key]
    chosen: Tested | None
    failed: Tested | None

    @property
    def candidate(self) -> Candidate:
        """The one that will be used: the chosen one, or else the one that skips nothing."""
        return self.chosen.candidate if self.chosen else Candidate()


def prepare(
    evaluator: Evaluator,
    splits: Splits[tuple[Any, Any]],
    guarantee: Guarantee,
    objective: str,
    bar: Progress,
    budget: TimeBudget,
) -> Run:
    """Run the original model on the search and test splits.

    A few sequences run first, one of them also with two policies: an error in the model, the losses, the number of
    sequences or the time shows there and not after minutes. Some run again, to see whether the model repeats itself.
    """
    one_row, size = guarantee.conditional, len(splits.test)
    share = size / sum(len(part) for part in (splits.fit, splits.search, splits.test))
    first = evaluator.label(splits.search[:1], one_row=one_row)
    guarantee.check(first, size, share)
    for policy in (Dense(), EXTREME):
        able = skipping_shapes(evaluator.lstms)
        evaluator.run({name: policy if name in able else Dense() for name in evaluator.lstms}, first)
    with original(evaluator.lstms):
        few = [inputs for inputs, _ in splits.search[:REPEATED]]
        check_repeatable(evaluator.model, few, evaluator.output)
    others = [*splits.search[1:], *splits.test]
    bar.expect(len(others))
    begun = perf_counter()
    labelled = first + evaluator.label(others[:FIRST], one_row=one_row)
    budget.require((perf_counter() - begun) / FIRST * _least_runs(splits))
    labelled += evaluator.label(others[FIRST:], one_row=one_row)
    return Run(
        evaluator=evaluator,
        guarantee=guarantee.on(labelled, size, share),
        by_macs=objective == "macs",
        fit=[inputs for inputs, _ in splits.fit],
        search=labelled[:-size],
        test=labelled[-size:],
        seconds=(perf_counter() - begun) / len(others),
        bar=bar,
    )


def skipping_shapes(lstms: Mapping[str, AdaptiveLSTM]) -> dict[str, StackShape]:
    """Sizes of the LSTMs for which there are policies: all but cells."""
    return {name: lstm.stack_shape for name, lstm in lstms.items() if not lstm.stack_shape.one_step}


def _least_runs(splits: Splits[tuple[Any, Any]]) -> int:
    """Runs of the original model whose time a calibration needs at the least: labels, measuring, one candidate."""
    measuring = len(splits.fit) + BACKWARD * PROBES * min(len(splits.fit), SENSITIVITY_SEQUENCES)
    return measuring + 2 * (len(splits.search) + len(splits.test))


def measure(run: Run, families: Sequence[Family], seed: int) -> FitData:
    """Sensitivity and translators from the fit split, as far as the families need them.

    The model runs in float32, with replaced weights if it has some, as thresholds and exits will see their states; as
    it is deployed, where it shows how soon it forgets.
    """
    run.bar.note("measuring")
    model, lstms, output = run.evaluator.model, run.evaluator.lstms, run.evaluator.output
    sensitivities, translators, forgetting = {}, {}, {}
    with unskipped(lstms):
        if any("sensitivity" in f.kind.needs for f in families):
            few = run.fit[:SENSITIVITY_SEQUENCES]
            found = measure_sensitivities(model, few, probes=PROBES, output=output, seed=seed, progress=False)
            sensitivities = {name: found[name] for name in run.shapes}
        if any("translators" in f.kind.needs for f in families):
            translators = {name: fit_translators(model, run.fit, lstm=name, progress=False) for name in run.shapes}
    if any("forgetting" in f.kind.needs for f in families):
        forgetting = measure_forgetting(model, run.fit[:SENSITIVITY_SEQUENCES])
    return FitData(run.shapes, sensitivities, translators, forgetting)


def search(run: Run, families: Sequence[Family], measured: FitData, use: Use, budget: TimeBudget) -> Found:
    """Run candidates on the search split, and choose those to test by their macs, or by their predicted time.

    Where the use is a stream, what a stream cannot run is left out.
    """
    evaluate = run.evaluator.run if run.by_macs else run.evaluator.timed

    timing = 0 if run.by_macs else MAX_FINALISTS * 2 * TIMING_ROUNDS * min(len(run.search), TIMED_SEQUENCES)
    later = MAX_TESTED * len(run.test) + timing  # runs of one sequence that follow

    def on_first(candidate: Candidate, n: int) -> Outcome:
        run.bar.note(str(candidate))
        return evaluate(candidate.settings(run.names), run.search[:n])

    search = Search(
        on_first,
        run.guarantee.limits,
        len(run.search),
        lambda candidate: fits(candidate, run.shapes),
        by_macs=run.by_macs,
        worst_early_exit_ratio=run.guarantee.worst_early_exit_ratio,
        certifiable_ratio=run.guarantee.certifiable_ratio,
        expect=lambda runs: run.bar.expect(runs + later, run.seconds),
        over=budget.part(later * run.seconds).passed,
    )
    scored = search.run(sweeps_of(families, measured, conditional=run.guarantee.conditional, streams=use == "stream"))
    dense = search.cost(scored[0])
    costs = {s.candidate.key: search.cost(s) / dense for s in scored}
    # A compressed model that skips nothing has something to prove too, and may be all that passes.
    able = [s for s in scored if costs[s.candidate.key] < 1 or (run.compressed and not s.candidate.choices)]
    return Found(scored, costs, search.to_test(able), search.ended_early)


def prove(run: Run, found: Found, budget: TimeBudget) -> Proof:
    """Test the candidates on the test split, one after the other, until the first failure or the end of the time."""
    run.bar.expect(len(found.front) * len(run.test))
    tested: dict[Key, Tested] = {}

    def p_values() -> Iterator[float]:
        for candidate in (s.candidate for s in found.front):
            if tested and budget.left < len(run.test) * run.seconds:
                return  # what the losses are has no part in this, so the guarantee holds for those that passed
            run.bar.note(f"testing {candidate}")
            outcome = run.evaluator.run(candidate.settings(run.names), run.test)
            p = run.guarantee.p_value(candidate, outcome)
            tested[candidate.key] = Tested(candidate, outcome, p)
            yield p

    count = risk.fixed_sequence(p_values(), run.guarantee.confidence)
    passed = [s.candidate.key for s in found.front[:count]]
    chosen = tested[min(passed, key=found.costs.__getitem__)] if passed else None
    failed = next((one for key, one in tested.items() if key not in passed), None)
    return Proof(tested, frozenset(passed), chosen, failed)


def record(run: Run, timed: Timed, proof: Proof, use: Use, fingerprints: Splits[str], seconds: float) -> Calibration:
    """Write down what was found, timed and proven; ``seconds`` is what finding it took."""
    found, chosen, settings = timed.found, proof.chosen, proof.candidate.settings(run.names)
    outcome = chosen.outcome if chosen else None
    time = None
    if proof.candidate.choices:
        time = timed.times.get(proof.candidate.key) or run.stopwatch(use).time(settings)
    certificate = make_certificate(
        run.evaluator.model,
        str(proof.candidate),
        settings,
        run.guarantee,
        fingerprints,
        outcome=outcome,
        p_value=chosen.p_value if chosen else None,
        time=time,
        finalists=timed.summary,
        candidates={"searched": len(found.scored), "tested": len(proof.tested)},
        seconds=seconds,
        more=_more(run, proof),
    )
    points = sorted((_point(s, run.names, timed, proof) for s in found.scored), key=lambda point: point.cost)
    ranges = {name: _ranges(outcome, name) for name in run.names}
    return Calibration(chosen is not None, settings, tuple(points), certificate, ranges, time)


def _more(run: Run, proof: Proof) -> dict[str, Any] | None:
    """For the certificate: how many sequences would do, where nothing that skips passed for want of them."""
    failed = proof.failed
    if failed is None or proof.candidate.choices:
        return None
    test = run.guarantee.size_needed(failed.candidate, failed.outcome)
    if test is None:
        return None
    size = len(run.test)
    sequences = math.ceil(test * (len(run.fit) + len(run.search) + size) / size)
    return {"policy": str(failed.candidate), "losses": failed.outcome.losses.mean(0).tolist(), "test": test,
            "sequences": sequences}  # fmt: skip


def _point(s: Scored, names: Sequence[str], timed: Timed, proof: Proof) -> Point:
    key = s.candidate.key
    tested = proof.tested.get(key)
    return Point(
        name=str(s.candidate),
        settings=s.candidate.settings(names),
        cost=timed.found.costs[key],
        time=timed.times.get(key),
        macs=s.outcome.macs_share,
        search_risks=s.risks,
        test_risks=tuple(float(r) for r in tested.outcome.losses.mean(0)) if tested else None,
        p_value=tested.p_value if tested else None,
        certified=key in proof.passed,
    )


def _ranges(outcome: Outcome | None, name: str) -> dict[str, Range]:
    """What the monitor of an LSTM compares with."""
    if outcome is None or not len(outcome.rates[name]):
        return {}
    return {rate: Range.of(values) for rate, values in zip(RATES, outcome.rates[name].T, strict=True)}
