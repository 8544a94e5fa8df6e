"""What does "prune and quantize for me" give? One table for all models: bytes, and the change of the task figures.

``python -m eval.within_budget --zoo PATH`` compresses every model with ``al.compress_within`` at budgets from loose to
strict, and stops at the first whose task figures are no worse than ``eval/frontier/quality.py`` allows (a hundredth, or
one decision; the equal error rate of the speaker encoder 0.002); models without labelled data must stay as close to the
original as is required there. PASS: all that, with at most 30 % of the bytes of float32. Otherwise the best setting is
shown, with the reason for the MISS. Data are thinned so that a model takes minutes: the record has the number of
sequences that were fitted on, and the share of the labelled data that was read.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.model_io import batch_by_shape
from adaptive_lstm.runtime.adapt import lstms_of
from eval import zoo
from eval.frontier.quality import FIDELITY, allowed
from eval.shared import common
from eval.zoo.base import ZooModel, first

BUDGETS = (0.3, 0.1, 0.03, 0.01, 0.003)
FIT, BATCH, TEST = 64, 8, 100  # sequences at most, those of a batch, and those that distances are taken on
EVERY = 4  # reads one of so many labelled items
BYTES = 0.30
ERROR_RATE, ERROR_RATE_BY = "EER", 0.002
BETTER_IF_HIGHER = ("accuracy", "F1")


def worsening(model: ZooModel, dense: Mapping[str, float], found: Mapping[str, float], every: int) -> dict[str, float]:
    """How much worse each figure got, as a share of the allowed change: above 1 is too much, below 0 is better."""
    out = {}
    for name, value in dense.items():
        worse = value - found[name] if name.endswith(BETTER_IF_HIGHER) else found[name] - value
        slack = ERROR_RATE_BY if name == ERROR_RATE else allowed(name, value, every, model.decisions)
        out[name] = worse / slack
    return out


def setting(report: al.CompressReport, fast: nn.Module) -> str:
    """The chosen setting in words."""
    precisions = "+".join(sorted({m.precision for m in report.matrices}))
    levels = sorted({lstm.quantize.levels for lstm in lstms_of(fast).values()}) if "int8" in precisions else []
    said = f" (h in {', '.join(map(str, levels))} levels)" if levels else ""
    return f"{precisions}{said}, {report.sparsity:.0%} zeros"


def judged(model: ZooModel, every: int) -> dict[str, Any]:
    """The record of one model."""
    material = model.prepared()
    fit, test = batch_by_shape(material.fit[:FIT], BATCH), material.test[:TEST]
    fast = al.adapt(model.model)
    with torch.no_grad():
        outputs = [first(model.model(x)) for x in test]
    dense = dict(model.measure(model.model, every=every))
    tried: list[dict[str, Any]] = []
    before: Any = None
    for budget in BUDGETS:
        report = al.compress_within(fast, fit, budget)
        now = report.matrices, [lstm.quantize for lstm in lstms_of(fast).values()]
        if now == before:
            continue  # a stricter budget that the same model meets
        before = now
        with torch.no_grad():
            between = [model.distance.between(first(fast(x)), y) for x, y in zip(test, outputs, strict=True)]
        task = dict(model.measure(fast, every=every))
        worse = worsening(model, dense, task, every) or {model.distance.name: sum(between) / len(between) / FIDELITY}
        tried.append(
            {
                "budget": budget,
                "setting": setting(report, fast),
                "bytes": report.bytes_after / report.bytes_before,
                "zeros": report.sparsity,
                "task": task,
                "relative": {name: task[name] / dense[name] - 1 for name in task if dense[name]},
                "distance": sum(between) / len(between),
                "worst": max(worse.values()),
                "worst_of": max(worse, key=worse.__getitem__),
            }
        )
        if tried[-1]["worst"] <= 1:
            break
    chosen = tried[-1] if tried[-1]["worst"] <= 1 else min(tried, key=lambda one: one["worst"])
    kept, small = chosen["worst"] <= 1, chosen["bytes"] <= BYTES
    why = "" if kept else f"{chosen['worst_of']} beyond what is allowed at every budget"
    if kept and not small:
        figure = tried[max(len(tried) - 2, 0)]["worst_of"]
        why = f"settings of at most {BYTES:.0%} of the bytes change {figure} too much"
    return {
        "fitted_on": min(FIT, len(material.fit)),
        "labels_read": 1 / every,
        "tested_on": len(test),
        "dense": dense,
        **chosen,
        "tried": tried,
        "verdict": "PASS" if kept and small else "MISS",
        "why": why,
    }


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, zoo.NAMES)
    parser.add_argument("--every", type=common.positive, default=EVERY, help=f"labelled items to step by ({EVERY})")
    options = parser.parse_args()
    header = ["model", "bytes", "chosen", "figure", "dense", "compressed", "change", "distance", ""]
    rows = []
    with common.inference(options.threads):
        common.headline(options)
        for name in zoo.present(options.models, options.zoo):
            model = zoo.load(name, options.zoo)
            if model.material is None:
                rows.append([name, *[""] * (len(header) - 2), "no sequences to fit on"])
                continue
            found = judged(model, options.every)
            record = {"group": name, "case": "within budget", **found}
            common.save(options, "within_budget", [record])  # model by model: all of them take an hour
            rows.append(_cells(name, found))
            if options.json:
                print(json.dumps(record), flush=True)
            else:
                print(" | ".join(map(str, rows[-1])), found["why"], flush=True)
    if not options.json:
        print(common.table("al.compress_within, the loosest budget that keeps the task", header, rows))


def _cells(name: str, found: Mapping[str, Any]) -> list[str]:
    figure = found["worst_of"] if found["task"] else ""
    old, new = found["dense"].get(figure), found["task"].get(figure)
    return [
        name,
        f"{found['bytes']:.0%}",
        found["setting"],
        figure,
        "" if old is None else f"{old:.4g}",
        "" if new is None else f"{new:.4g}",
        "" if figure not in found["relative"] else f"{found['relative'][figure]:+.2%}",
        f"{found['distance']:.4f}",
        found["verdict"],
    ]


if __name__ == "__main__":
    main()
