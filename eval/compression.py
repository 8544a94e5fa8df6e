"""What do static pruning and quantization cost and bring, on real models and held-out data?

``python -m eval.compression --zoo PATH`` compresses every model of the zoo in several ways (``al.compress``: no
gradient step, fitted on the fit and search parts of its material) and prints, for each,

- task: the figures of the model on its labelled data, where it has some;
- fidelity: 1 - distance between its outputs and the original's, on held-out sequences (for the speaker encoder
  the cosine of embeddings of held-out speakers);
- bytes as stored, as a share of float32; zeros: share of weights;
- step: how many times as fast as exact float32 a streaming step of the LSTM is (of several: of the slowest), and as
  the same precision with nothing pruned.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import adaptive_lstm as al
from adaptive_lstm.compression.compress import Rounding
from adaptive_lstm.model_io import batch_by_shape
from adaptive_lstm.weights.precision import Precision
from eval import zoo
from eval.shared import common
from eval.zoo.base import ZooModel, first
from eval.zoo.material import Material

ENCODER = "resemblyzer"
FIT, TEST = 350, 400  # sequences at most
GOALS = {  # of the speaker encoder: row -> at least this fidelity
    "int8": 0.998,
    "unstructured 30%": 0.992,
    "unstructured 50%": 0.965,
    "3:4": 0.975,
    "2:4": 0.90,
    "block 30%": 0.95,
}


@dataclass(frozen=True)
class Row:
    """One way to compress."""

    name: str
    prune: al.Prune | None
    precision: Precision
    rounding: Rounding = "compensated"


ROWS = (
    Row("fp32", None, "fp32"),
    Row("bf16", None, "bf16"),
    Row("int8, nearest", None, "int8", "nearest"),
    Row("int8", None, "int8"),
    Row("unstructured 30%", al.Prune("unstructured", 0.3), "fp32"),
    Row("unstructured 50%", al.Prune("unstructured", 0.5), "fp32"),
    Row("unstructured 50%, int8", al.Prune("unstructured", 0.5), "int8"),
    Row("3:4", al.Prune("3:4"), "fp32"),
    Row("2:4", al.Prune("2:4"), "fp32"),
    Row("block 30%", al.Prune("block", 0.3), "fp32"),
    Row("block 50%, int8", al.Prune("block", 0.5), "int8"),
    Row("column 25%, int8", al.Prune("column", 0.25), "int8"),
    Row("unit 25%", al.Prune("unit", 0.25), "fp32"),
    Row("unit 25%, int8", al.Prune("unit", 0.25), "int8"),
)


def judge(
    model: ZooModel, material: Material, dense: Sequence[Tensor], row: Row, unpruned: Mapping[str, float]
) -> dict[str, Any]:
    """Compress one model in one way, and measure it.

    dense: the original's outputs for the first TEST test sequences; unpruned: seconds of a step by precision.
    """
    fast = al.adapt(model.model)
    fit = batch_by_shape((*material.fit, *material.search)[:FIT])
    report = al.compress(fast, fit, prune=row.prune, quantize=al.Quantize(row.precision), rounding=row.rounding)
    with torch.no_grad():
        distances = [model.distance.between(first(fast(x)), y) for x, y in zip(material.test, dense, strict=False)]
    before, after = _slowest(report)
    return {
        "row": row.name,
        "precision": row.precision,
        "task": dict(model.measure(fast)),
        "fidelity": 1 - sum(distances) / len(distances),
        "bytes": report.bytes_after / report.bytes_before,
        "zeros": report.sparsity,
        "seconds": after,
        "faster": before / after,
        "faster_than_unpruned": unpruned[row.precision] / after if row.prune and row.precision in unpruned else None,
    }


def _slowest(report: al.CompressReport) -> tuple[float, float]:
    found = [lstm.seconds for lstm in report.lstms if lstm.seconds is not None]
    return max(found, key=lambda seconds: seconds[0])


def judged(model: ZooModel, rows: tuple[Row, ...], *, quick: bool) -> Iterator[dict[str, Any]]:
    """Every row of a model; a pattern that does not fit it has the reason in its row."""
    material = model.prepared(quick=quick)
    unpruned: dict[str, float] = {}
    with torch.no_grad():
        dense = [first(model.model(x)) for x in material.test[:TEST]]
    for row in rows:
        try:
            found = judge(model, material, dense, row, unpruned)
        except al.AdaptiveLSTMError as error:
            found = {"row": row.name, "refused": str(error)}
        if row.prune is None and "seconds" in found:
            unpruned[row.precision] = found["seconds"]
        goal = GOALS.get(row.name) if model.name == ENCODER else None
        if goal is not None and "fidelity" in found:
            found |= {"at_least": goal, "verdict": "PASS" if found["fidelity"] >= goal else "MISS"}
        yield found


def _cells(found: Mapping[str, Any]) -> list[str]:
    if "refused" in found:
        return [found["row"], "refused", "", "", "", "", "", ""]
    task = ", ".join(f"{name} {value:.4g}" for name, value in found["task"].items())
    faster = found["faster_than_unpruned"]
    return [
        found["row"],
        f"{found['fidelity']:.4f}",
        task,
        f"{found['bytes']:.0%}",
        f"{found['zeros']:.0%}",
        f"{found['faster']:.2f}x",
        "" if faster is None else f"{faster:.2f}x",
        found.get("verdict", ""),
    ]


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, zoo.NAMES)
    parser.add_argument("--rows", help="names of rows, separated by semicolons (default: all)")
    options = parser.parse_args()
    wanted = [row.name for row in ROWS] if options.rows is None else options.rows.split(";")
    if unknown := sorted(set(wanted) - {row.name for row in ROWS}):
        parser.error(f"--rows: unknown {unknown}, choose from {'; '.join(row.name for row in ROWS)}")
    with common.inference(options.threads):
        common.headline(options)
        for model in zoo.with_material(options.models, options.zoo):
            found = []
            for one in judged(model, tuple(row for row in ROWS if row.name in wanted), quick=options.quick):
                found.append(one)
                record = {"group": model.name, "case": one["row"], **one}
                if options.json:
                    print(json.dumps(record), flush=True)
                common.save(options, "compression", [record])  # row by row: a model takes half an hour
            if not options.json:
                header = ["compressed", "fidelity", "task", "bytes", "zeros", "step", "of its precision", ""]
                title = f"{model.name}: fidelity is 1 - {model.distance.name}"
                print(common.table(title, header, [_cells(one) for one in found]), flush=True)


if __name__ == "__main__":
    main()
