"""Does the cost model put candidates in the order that the clock puts them in?

``python -m eval.cost_model --zoo PATH``. A calibration by time orders its search by predicted times and times only its
finalists. Here, for six models in int8, a cost model learns from the runs of every strength of every family and of some
pairs, as it does in a search, and 30 of these, from the cheapest to the dearest by prediction, are timed as finalists
are. Spearman's rank correlation of prediction and clock should be at least 0.9.
"""

import argparse
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from adaptive_lstm.calibration.candidates import Candidate, fits, sweeps_of
from adaptive_lstm.calibration.evaluation import Evaluator
from adaptive_lstm.calibration.families import check_families
from adaptive_lstm.calibration.guarantee import Guarantee
from adaptive_lstm.calibration.latency_model import CostTable
from adaptive_lstm.calibration.pareto import spread_by_cost
from adaptive_lstm.calibration.splits import split_sequences
from adaptive_lstm.calibration.steps import Run, measure, prepare
from adaptive_lstm.calibration.time_budget import TimeBudget
from adaptive_lstm.cli.demo.run import int8
from adaptive_lstm.progress import Progress
from adaptive_lstm.runtime.adapt import adapted_lstms
from eval import zoo
from eval.shared import common
from eval.zoo.base import ZooModel
from eval.zoo.material import Material

MODELS = ("fsdd-speakers", "fsdd-digits", "resemblyzer", "pjm", "turbofan", "nnsplit-en")
CANDIDATES, LEAST = 30, 0.9
PAIRS = 60  # that are drawn, of which some cannot act together
FIT, SEARCH, TEST = 60, 12, 60  # sequences of each model
LIMIT, CONFIDENCE = 0.1, 0.9  # as a calibration asks for them; nothing is certified here


def prepared(model: nn.Module, material: Material, bar: Progress) -> tuple[Run, list[Candidate]]:
    """A calibration that has measured what its families need, and what its search might try."""
    few = material.thinned(FIT, SEARCH, TEST, fresh=0, max_loss=LIMIT)
    lstms = adapted_lstms(model)
    guarantee = Guarantee.of(few.loss, LIMIT, CONFIDENCE, conditional=False)
    shapes = {name: lstm.stack_shape for name, lstm in lstms.items()}
    families = check_families(few.families(model), shapes, next(model.parameters()))
    splits, _ = split_sequences(few.splits, (1, 1, 1), seed=0)
    evaluator = Evaluator(model, lstms, guarantee.losses, tick=bar.advance)
    run = prepare(evaluator, splits, guarantee, "latency", bar, TimeBudget(None))
    with torch.enable_grad():  # sensitivities
        measured = measure(run, families, seed=0)
    sweeps = sweeps_of(families, measured, conditional=False)
    single = [Candidate(((sweep, p),)) for sweep in sweeps for p in sweep.positions]
    draw = random.Random(0)
    pairs = (a.joined(b) for a, b in (draw.sample(single, 2) for _ in range(PAIRS)))
    return run, [*single, *(both for both in pairs if both is not None and fits(both, shapes))]


def judge(model: ZooModel, options: argparse.Namespace) -> dict[str, Any]:
    """Predicted and measured shares of the time of one model's candidates, and their rank correlation."""
    fast = int8(model.model)
    table, work = CostTable(), []
    with Progress(f"running: {model.name}", "run", show=not options.json) as bar:
        run, candidates = prepared(fast, model.prepared(quick=options.quick), bar)
        for one in (Candidate(), *candidates):
            outcome = run.evaluator.timed(one.settings(run.names), run.search)
            table.learn(outcome.work, outcome.seconds)
            work.append(outcome.work)
    table.fit()
    dense, *seconds = map(table.seconds, work)
    predicted = np.array(seconds) / dense
    order = np.argsort(predicted)
    chosen = order[spread_by_cost(predicted[order], CANDIDATES)]
    stopwatch = run.stopwatch("sequence")
    rows = []
    for k in chosen:
        share = stopwatch.time(candidates[k].settings(run.names))
        rows.append({"name": str(candidates[k]), "predicted": float(predicted[k]), "time": share.as_dict()})
    return {"rank": rank_correlation(rows), "least": LEAST, "candidates": rows}


def rank_correlation(rows: Sequence[dict[str, Any]]) -> float:
    """Spearman's, of predicted shares of the time and measured medians."""
    return float(spearmanr([r["predicted"] for r in rows], [r["time"]["median"] for r in rows]).statistic)


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, MODELS)
    options = parser.parse_args()
    lines = []
    with common.inference(options.threads):
        common.headline(options)
        for model in zoo.with_material(options.models, options.zoo):
            found = {"group": "candidates", "case": model.name, **judge(model, options)}
            common.save(options, "cost_model", [found])
            if options.json:
                print(json.dumps(found))
            verdict = "PASS" if found["rank"] >= LEAST else "MISS"
            lines.append([model.name, str(len(found["candidates"])), f"{found['rank']:.3f}", verdict])
    if not options.json:
        print(
            common.table("rank correlation of predicted and measured time", ["model", "candidates", "rank", ""], lines)
        )


if __name__ == "__main__":
    main()
