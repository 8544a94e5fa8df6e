"""Are certificates false as rarely as they promise on real losses? Calibrate-then-test on resampled recordings.

``python -m eval.validity.zoo --zoo PATH --cache FOLDER``. A fixed set of policies is run once on every sequence that
the fit split of a model does not hold, and the losses are kept in FOLDER (delete a file there to record anew). These
sequences are then taken for the whole population: the true risk of a policy is its mean loss over all of them. Every
repeat draws a search and a test split from it with replacement, so that both are exactly independent draws from that
population (without replacement a finite population would be kinder than the certificate assumes), and goes through
Pareto front and fixed sequence. The columns are those of ``eval.validity``.

- fsdd-digits: exits in time x delta columns, disagreement with the original, 0 or 1: binomial test.
- resemblyzer: delta columns under several scales, 1 - cosine of the embedding, between 0 and 1: betting test.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import adaptive_lstm as al
from adaptive_lstm.calibration.pareto import order_to_test
from adaptive_lstm.calibration.risk import fixed_sequence, p_value
from adaptive_lstm.cli.demo.run import int8
from eval import zoo
from eval.shared import common
from eval.shared.deployed import FloatArray, serve
from eval.validity import __main__ as validity
from eval.zoo.material import Material

REPEATS = 200
QUICK_REPEATS, QUICK_SEQUENCES = 50, 40
SENSITIVITY_SEQUENCES, BATCH = 64, 32
DOUBTS = (None, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)  # 1 - margin at which a recording may exit
EXIT_TAUS = (None, 0.005, 0.01, 0.02, 0.05)
TAUS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.014, 0.017, 0.02, 0.025, 0.03, 0.04)
SCALES = ((0.0, 0.0), (0.0, 1.0), (0.5, 1.0))  # gamma and power of the thresholds

Candidates = Mapping[str, al.Policy]


@dataclass(frozen=True)
class Setup:
    """A model's candidates, the limits to promise, and sequences per search and test split."""

    candidates: Callable[[nn.Module, Material], Candidates]
    limits: tuple[float, ...]
    search: int
    test: int


@dataclass(frozen=True)
class Population:
    """losses: [K, N] of every candidate on every sequence; cost: [K] share of the dense multiply-accumulates."""

    losses: FloatArray
    cost: FloatArray
    binary: bool


def _batches(inputs: Sequence[Tensor]) -> list[Tensor | PackedSequence]:
    """The inputs, each a batch of one, in larger batches: packed where their lengths differ."""
    parts = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
    equal = len({x.shape for x in inputs}) == 1
    return [torch.cat(tuple(p)) if equal else pack_sequence([x[0] for x in p], enforce_sorted=False) for p in parts]


def _exiting(fast: nn.Module, material: Material) -> Candidates:
    """Exits in time with the model's own head on the translated state, with delta columns: 34 policies."""
    sensitivity = al.measure_sensitivity(fast, _batches(material.fit[:SENSITIVITY_SEQUENCES]))
    translators = al.fit_translators(fast, _batches(material.fit)).time
    head = fast.get_submodule("fc")
    found: dict[str, al.Policy] = {}
    for doubt, tau in itertools.product(DOUBTS, EXIT_TAUS):
        parts: list[al.Policy] = []
        if tau is not None:
            parts.append(al.Delta.scaled(sensitivity, tau))
        if doubt is not None:
            threshold = 1 - doubt
            parts.append(al.ExitInTime(head=head, threshold=threshold, translators=translators))
        if parts:
            found[f"doubt {doubt}, tau {tau}"] = al.Combined(*parts) if len(parts) > 1 else parts[0]
    return found


def _columns(fast: nn.Module, material: Material) -> Candidates:
    """Delta columns alone: 36 policies."""
    sensitivity = al.measure_sensitivity(fast, _batches(material.fit[:SENSITIVITY_SEQUENCES]))
    return {
        f"gamma {gamma:g}, power {power:g}, tau {tau:g}": al.Delta.scaled(sensitivity, tau, gamma=gamma, power=power)
        for (gamma, power), tau in itertools.product(SCALES, TAUS)
    }


SETUPS = {
    "fsdd-digits": Setup(_exiting, limits=(0.01, 0.02, 0.05), search=200, test=550),
    "resemblyzer": Setup(_columns, limits=(0.005, 0.01, 0.02), search=150, test=1000),
}


def record(name: str, setup: Setup, folder: Path, *, quick: bool) -> Population:
    """Run every candidate on every sequence that was not fitted on."""
    model = zoo.load(name, folder)
    material = model.prepared()
    fast = int8(model.model)
    inputs = [*material.search, *material.test, *material.fresh][: QUICK_SEQUENCES if quick else None]
    dense = [model.model(x) for x in inputs]
    lstm = fast.get_submodule("lstm")
    assert isinstance(lstm, al.AdaptiveLSTM)
    losses, cost = [], []
    for policy in setup.candidates(fast, material).values():
        lstm.policy = policy
        done = serve(fast, inputs, dense, material.loss)
        losses.append(done.losses)
        cost.append(1 - done.skipped)
    return Population(np.array(losses), np.array(cost), material.loss.binary(dense[0]))


def cached(path: Path, make: Callable[[], Population]) -> Population:
    """What the file holds, or what ``make`` gives, kept there."""
    if not path.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, losses=made.losses, cost=made.cost, binary=made.binary)
    with np.load(path) as stored:
        return Population(stored["losses"], stored["cost"], bool(stored["binary"]))


def calibrate_once(population: Population, limit: float, setup: Setup, rng: np.random.Generator) -> validity.Outcome:
    """Search split, front, order, test split, fixed sequence, on recorded losses: as ``al.calibrate`` does it."""
    losses, cost = population.losses, population.cost
    search, test = (rng.integers(losses.shape[1], size=n) for n in (setup.search, setup.test))
    estimate = losses[:, search].mean(1)
    cheaper = np.flatnonzero(cost < 1)
    order = cheaper[order_to_test(cost[cheaper], estimate[cheaper] / limit)]
    seen: list[float] = []

    def p_values() -> Iterator[float]:
        for k in order:
            seen.append(p_value(losses[k, test], limit, binary=population.binary))
            yield seen[-1]

    fixed_sequence(p_values(), min(validity.CONFIDENCES))  # the others stop no later
    passed = [fixed_sequence(seen, confidence) for confidence in validity.CONFIDENCES]
    tempting = int(order[-1]) if len(order) else None
    return validity.Outcome(tuple(int(order[n - 1]) if n else None for n in passed), tempting)


def resampled(population: Population, setup: Setup, repeats: int) -> Iterator[tuple[float, list[dict[str, object]]]]:
    """Every limit with its rows, one per confidence."""
    true = population.losses.mean(1)
    for seed, limit in enumerate(setup.limits):
        rng = np.random.default_rng(seed)
        outcomes = [calibrate_once(population, limit, setup, rng) for _ in range(repeats)]
        yield limit, list(validity.summarise(true / limit, 1 - population.cost, outcomes))


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, tuple(SETUPS), tuple(SETUPS))
    parser.add_argument("--cache", type=Path, required=True, help="folder for the recorded losses")
    options = parser.parse_args()
    repeats = QUICK_REPEATS if options.quick else REPEATS
    records: list[dict[str, object]] = []
    rows: list[Sequence[object]] = []
    with common.inference(options.threads):
        common.headline(options)
        for name in options.models:
            setup = SETUPS[name]
            file = options.cache / f"{name}{'-quick' if options.quick else ''}.npz"
            population = cached(file, lambda n=name, s=setup: record(n, s, options.zoo, quick=options.quick))  # type: ignore[misc]
            size = population.losses.shape[1]
            for limit, found in resampled(population, setup, repeats):
                records.append({"group": name, "case": f"limit {limit:g}", "repeats": repeats, "population": size,
                                "search": setup.search, "test": setup.test, "rows": found})  # fmt: skip
                rows += [validity.row(f"{size} sequences, limit {limit:g}", name, one) for one in found]
    if options.json:
        print("\n".join(json.dumps(one) for one in records))
    else:
        title = f"{repeats} calibrations on resampled real losses: share of false certificates"
        print(common.table(title, validity.HEADER, rows))
        print(f"\n{validity.allowance(repeats)}")
    common.save(options, "validity", records)


if __name__ == "__main__":
    main()
