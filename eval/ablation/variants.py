"""Every idea of the project as variants of one model, each idea against what it replaces: part of ``eval.ablation``.

thresholds  delta columns: one threshold for all (what delta networks do) against thresholds by saliency, in several
            dampings gamma and powers, and against priced ones, each from careful to bold
pruning     compensation for pruned weights: none, their mean into the bias, refit
precision   uniform against mixed precision at several sizes; h and raw features in fewer bits; compensated rounding
policies    every policy alone, from careful to bold, then pairs and all of them together: each in its boldest setting
            that alone keeps a share of the model's limit
ladder      precision, pruning and delta, one after the other
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import adaptive_lstm as al
from adaptive_lstm.calibration.candidates import Candidate, fits, sweeps_of
from adaptive_lstm.calibration.steps import PROBES, SENSITIVITY_SEQUENCES
from adaptive_lstm.compression.compress import Rounding
from adaptive_lstm.compression.pruning.settings import Compensate
from adaptive_lstm.model_io import batch_by_shape
from adaptive_lstm.policies import FitData, Sweep
from adaptive_lstm.runtime.adapt import adapted_lstms
from eval.zoo.base import ZooModel
from eval.zoo.material import Material

FIT = 200  # sequences
FULL, FEW = 5, 2  # strengths of a track
PATTERNS = (("unstructured", 0.3), ("unstructured", 0.5), ("column", 0.25), ("unit", 0.25))
COMPENSATIONS: tuple[Compensate, ...] = ("none", "mean", "refit")
SIZES = (0.26, 0.28, 0.32, 0.4, 0.5)  # of mixed precision: shares of float32
LADDER = (0.2, 0.01)  # sparsity, and tau of the delta columns
ALONE = 0.4  # the share of the limit that a policy to be composed may use


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to run a model.

    ``make``: an adapted copy that runs so; AdaptiveLSTMError if the model does not allow it. ``base``: the copy whose
    time its own is compared with. ``settings``: its place in a figure. ``candidate``: its policies, if it has any.
    """

    name: str
    make: Callable[[], nn.Module]
    base: nn.Module
    settings: dict[str, Any] = field(default_factory=dict)
    candidate: Candidate | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the material of its variants. ``int8``: an adapted copy, nothing pruned or skipped."""

    model: ZooModel
    material: Material
    int8: nn.Module
    sensitivities: Mapping[str, al.Sensitivity]
    measured: FitData
    quick: bool

    @property
    def strengths(self) -> int:
        return FEW if self.quick else FULL

    @property
    def fit(self) -> list[Any]:
        """In batches."""
        return list(batch_by_shape(self.material.fit[:FIT]))


def subject(model: ZooModel, *, quick: bool) -> Subject:
    """Prepare a model: one pass for its sensitivity, one for translators if it has exits."""
    material = model.prepared(quick=quick)
    exact = al.adapt(model.model)
    lstms = adapted_lstms(exact)
    sensitivities = al.measure_sensitivities(exact, material.fit[:SENSITIVITY_SEQUENCES], probes=PROBES)
    exits = any("translators" in family.kind.needs for family in material.families(exact))
    translators = {n: al.fit_translators(exact, material.fit, lstm=n) for n in lstms} if exits else {}
    int8 = al.adapt(model.model)
    al.compress(int8, quantize=al.Quantize("int8"))
    shapes = {name: lstm.stack_shape for name, lstm in lstms.items()}
    return Subject(model, material, int8, sensitivities, FitData(shapes, sensitivities, translators), quick)


def thresholds(of: Subject) -> Iterator[Variant]:
    """Where the thresholds of delta columns come from."""
    for sweep in sweeps_of([al.Family(al.Delta)], of.measured, conditional=False):
        yield from _alone(of, sweep)


def pruning(of: Subject) -> Iterator[Variant]:
    """The gain of compensation; the score and its settings are fixed, so that nothing else differs."""
    for pattern, sparsity in PATTERNS[:1] if of.quick else PATTERNS:
        for compensate in COMPENSATIONS:
            prune = al.Prune(pattern, sparsity, saliency="second-order", gamma=0.5, compensate=compensate, ridge=0.1)
            settings = {"pattern": pattern, "sparsity": sparsity, "compensate": compensate}
            yield _compressed(of, f"{pattern} {sparsity:.0%}, {compensate}", settings, prune, al.Quantize())


def precision(of: Subject) -> Iterator[Variant]:
    """The best use of the same bytes."""
    uniform = {
        "fp32": al.Quantize(),
        "bf16": al.Quantize("bf16"),
        "int8": al.Quantize("int8"),
        "int8, input levels 127": al.Quantize("int8", input_levels=127),
        "int8, all levels 127": al.Quantize("int8", levels=127, input_levels=127),
        "weight-only int8": al.Quantize("int8", levels=0, input_levels=0),
        "int8, raw too": al.Quantize("int8", raw="int8"),
        "int8, raw too, dynamic": al.Quantize("int8", raw="int8", raw_range="dynamic"),
    }
    for name, quantize in uniform.items():
        yield _compressed(of, name, {"mixed": False}, None, quantize)
    for name in ("int8", "int8, all levels 127"):  # else: to nearest
        yield _compressed(of, f"{name}, compensated", {"mixed": False}, None, uniform[name], rounding="compensated")
    for size in SIZES[2:3] if of.quick else SIZES:
        yield Variant(f"mixed {size:.0%}", lambda size=size: _mixed(of, size), of.int8, {"mixed": True, "size": size})  # type: ignore[misc]


def policies(of: Subject, boldest: Callable[[Sequence[Variant]], list[Variant]]) -> Iterator[Variant]:
    """Every policy alone, then together.

    boldest: called after the variants that run alone have been judged; returns the one of every family to compose.
    """
    families = of.material.families(of.int8)
    alone = [
        variant
        for sweep in sweeps_of(families, of.measured, conditional=False)
        if sweep.family != "delta" or sweep.name == "delta(gamma=0.5, power=1)"
        for variant in _alone(of, sweep)
    ]
    yield from alone
    chosen = boldest(alone)
    for count in range(2, len(chosen) + 1):
        for few in itertools.combinations(chosen, count):
            joined = _joined(few)
            # Beyond pairs only those to which nothing can be added.
            if joined is None or (count > 2 and any(_joined((*few, v)) for v in chosen if v not in few)):
                continue
            if fits(joined, of.measured.shapes):
                parts = [variant.name for variant in few]
                yield Variant(" and ".join(parts), _skipping(of, joined), of.int8, {"parts": parts}, joined)


def _joined(few: Sequence[Variant]) -> Candidate | None:
    """All policies at once, or None if they cannot act together."""
    joined: Candidate | None = Candidate()
    for variant in few:
        assert variant.candidate is not None
        joined = None if joined is None else joined.joined(variant.candidate)
    return joined


def ladder(of: Subject) -> Iterator[Variant]:
    """The gain of each step."""
    sparsity, tau = LADDER
    prune = al.Prune("unstructured", sparsity, saliency="second-order", gamma=0.5, compensate="refit", ridge=0.1)
    for name, pruned, quantize, skips in (
        ("fp32", None, al.Quantize(), False),
        ("int8", None, al.Quantize("int8"), False),
        ("pruned", prune, al.Quantize(), False),
        ("pruned + int8", prune, al.Quantize("int8"), False),
        ("int8 + delta", None, al.Quantize("int8"), True),
        ("pruned + int8 + delta", prune, al.Quantize("int8"), True),
    ):
        yield _compressed(of, name, {"sparsity": sparsity, "tau": tau}, pruned, quantize, tau if skips else None)


def _alone(of: Subject, sweep: Sweep) -> Iterator[Variant]:
    positions = sweep.positions
    for i in range(of.strengths):
        position = positions[round(i * (len(positions) - 1) / (of.strengths - 1))]
        candidate = Candidate(((sweep, position),))
        if fits(candidate, of.measured.shapes):
            settings = {"track": sweep.name, "strength": sweep.strength(position)}
            yield Variant(str(candidate), _skipping(of, candidate), of.int8, settings, candidate)


def _skipping(of: Subject, candidate: Candidate) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        fast = copy.deepcopy(of.int8)
        lstms = adapted_lstms(fast)
        for name, policy in candidate.settings(list(lstms)).items():
            lstms[name].policy = policy
        return fast

    return make


def _compressed(
    of: Subject,
    name: str,
    settings: dict[str, Any],
    prune: al.Prune | None,
    quantize: al.Quantize,
    tau: float | None = None,
    rounding: Rounding = "nearest",
) -> Variant:
    """``tau``: with delta columns, scaled by the sensitivity of the compressed model."""

    def make() -> nn.Module:
        fast = al.adapt(of.model.model)
        al.compress(fast, of.fit, prune=prune, quantize=quantize, rounding=rounding)
        if tau is not None:
            few = of.material.fit[:SENSITIVITY_SEQUENCES]
            found = al.measure_sensitivities(fast, few, probes=PROBES)
            for lstm_name, lstm in adapted_lstms(fast).items():
                lstm.policy = al.Delta.scaled(found[lstm_name], tau)
        return fast

    return Variant(name, make, of.int8 if quantize.precision == "int8" else al.adapt(of.model.model), settings)


def _mixed(of: Subject, size: float) -> nn.Module:
    fast = al.adapt(of.model.model)
    for name, lstm in adapted_lstms(fast).items():
        lstm.quantize = al.mixed_precision(of.sensitivities[name], size=size)
    return fast
