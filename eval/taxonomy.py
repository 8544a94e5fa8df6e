"""Which saliency finds the weights to prune? Quality against sparsity for orders zero to two, with and without refit.

``python -m eval.taxonomy --zoo PATH`` prunes real models (unstructured) with every saliency of ``al.Prune``
(settings fixed: damping 0.5, ridge 0.1, one global cut), fits on a part of the material and measures the distance
from the original on held-out sequences, and the root mean square change of outputs (``changes``), which is finer than
a few decisions. ``--plot FILE`` draws the distance.

- zero order: magnitude; first order: activation |w| rms(z), and taylor |w g|; second order: F^0.5 w^2 E[z^2], and obs,
  elimination in order, which compensates by itself.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import adaptive_lstm as al
from adaptive_lstm.analysis.measure_sensitivity import measure_sensitivities
from adaptive_lstm.compression.output_error import relative_change
from adaptive_lstm.compression.pruning import prune_model
from adaptive_lstm.compression.pruning.settings import Compensate, Saliency
from adaptive_lstm.model_io import batch_by_shape
from adaptive_lstm.runtime.adapt import lstms_of
from eval import zoo
from eval.shared import common
from eval.zoo.base import ZooModel, first

MODELS = ("resemblyzer", "turbofan", "fsdd-digits")
SPARSITIES = (0.3, 0.5, 0.7)
ORDERS: dict[Saliency, int] = {"magnitude": 0, "activation": 1, "taylor": 1, "second-order": 2, "obs": 2}
FIT, TEST, BATCH = 64, 100, 16  # sequences, and those of a batch


def judged(model: ZooModel, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Every score at every sparsity, without and with refit."""
    material = model.prepared(quick=quick)
    fit, test = batch_by_shape(material.fit[:FIT], BATCH), batch_by_shape(material.test[:TEST], BATCH)
    with torch.no_grad():
        dense = [first(model.model(x)) for x in test]
    fast = al.adapt(model.model)
    lstms = lstms_of(fast)
    measured = measure_sensitivities(fast, fit)  # once: it is the longest part
    for saliency, order in ORDERS.items():
        for refit in (True,) if saliency == "obs" else (False, True):
            losses, changes = [], []
            for sparsity in SPARSITIES[:1] if quick else SPARSITIES:
                compensate: Compensate = "refit" if refit else "none"
                prune = al.Prune(
                    "unstructured", sparsity, saliency=saliency, gamma=0.5, compensate=compensate, ridge=0.1
                )
                for name, weights in prune_model(fast, fit, prune, sensitivities=measured).items():
                    lstms[name].replaced = weights
                with torch.no_grad():
                    found = [first(fast(x)) for x in test]
                off = [model.distance.between(x, y) * len(y) for x, y in zip(found, dense, strict=True)]
                losses.append(sum(off) / sum(map(len, dense)))
                changes.append(relative_change(dense, found))
            yield {
                "saliency": saliency,
                "order": order,
                "refit": refit,
                "sparsity": SPARSITIES,
                "losses": losses,
                "changes": changes,
            }


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel per model: distance from the original over sparsity; solid with refit, dashed without."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(r["group"] for r in records))
    figure = Figure(figsize=(4.2 * len(groups), 3.8), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    colours = {"magnitude": "C3", "activation": "C1", "taylor": "C4", "second-order": "C0", "obs": "C2"}
    for panel, group in zip(panels, groups, strict=True):
        for r in (r for r in records if r["group"] == group):
            label = f"{r['saliency']} (order {r['order']})" + (", refit" if r["refit"] else "")
            floor = [max(loss, 1e-5) for loss in r["losses"]]
            panel.plot(
                r["sparsity"], floor, "o-" if r["refit"] else "o--", color=colours[r["saliency"]], label=label, ms=3
            )
        panel.set(title=group, xlabel="share of weights removed", ylabel=_distance(records, group), yscale="log")
        panel.grid(alpha=0.3)
    panels[-1].legend(fontsize=7)
    figure.savefig(path, dpi=150)


def _distance(records: Sequence[dict[str, Any]], group: str) -> str:
    """The name of the distance of a model."""
    return next(str(r["distance"]) for r in records if r["group"] == group)


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, MODELS)
    parser.add_argument("--plot", type=Path, help="where to draw the figure, .png or .svg")
    options = parser.parse_args()
    records: list[dict[str, Any]] = []
    with common.inference(options.threads):
        common.headline(options)
        for name in options.models:
            records += _run(zoo.load(name, options.zoo), options)
    if options.plot is not None:
        draw(records, options.plot)


def _run(model: ZooModel, options: argparse.Namespace) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for one in judged(model, quick=options.quick):
        case = one["saliency"] + (", refit" if one["refit"] else "")
        records.append({"group": model.name, "case": case, "distance": model.distance.name, **one})
        common.save(options, "taxonomy", records[-1:])  # score by score: a model takes minutes
    if options.json:
        print("\n".join(map(json.dumps, records)))
    else:
        header = ["score", "order", *(f"{s:.0%}" for s in SPARSITIES)]
        rows = [[r["case"], r["order"], *(f"{loss:.4f}" for loss in r["losses"])] for r in records]
        print(common.table(f"{model.name}: {model.distance.name}", header, rows), flush=True)
    return records


if __name__ == "__main__":
    main()
