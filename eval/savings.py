"""What does a certified policy save on real models, and is its promise kept on fresh sequences?

``python -m eval.savings --zoo PATH`` adapts every model of the zoo, compresses it to int8, and lets ``al.calibrate``
search all policies that apply. Then, with the certified policy:

- skipped: share of the multiply-accumulates of all LSTMs (including those of the policy itself) that were left out
  on the test split, and of the recurrent matrices alone;
- saved: wall-clock of the whole model, batch 1, against the same int8 model with nothing skipped; and how many times
  as fast it is as the adapted float32 model and as torch;
- loss against the original model on the test split and on fresh sequences, which the calibration never saw. 'broken'
  means that the fresh ones contradict the limit (one-sided test at 0.95), not that a sample lies above it by chance.

For models with a goal in time, the costs that no policy can save are measured too: a call in which no column is sent
(it still compares inputs and computes gates) and a call of one timestep (the cost of a call by itself).

The table is followed by the kind of sequence that the certificate of each model covers; see ``eval/zoo/material.py``.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import ratio
from adaptive_lstm.calibration import risk
from adaptive_lstm.cli.demo.run import int8
from adaptive_lstm.errors import AdaptiveLSTMError
from eval import zoo
from eval.shared import common
from eval.shared.deployed import Served, serve
from eval.zoo.base import ZooModel
from eval.zoo.material import Material

CONFIDENCE = 0.95
TIMED = 12  # fresh sequences per timed call
WALL_SLACK = 0.10  # by how much the saved share of time may stay behind the skipped share of the work
ENCODER, WINDOWS, ENCODER_SECONDS = "resemblyzer", (100, 100, 200), 300.0
ENCODER_LIMIT = 0.02  # of that timed calibration: 200 windows certify nothing stricter
RECURRENT_GOALS = {ENCODER: 0.50}  # model -> at least this share of the recurrent multiply-accumulates skipped
GOALS = {"fsdd-speakers": 0.80, "fsdd-digits": 0.60}  # the same of all multiply-accumulates, and of the time


def calibrated(
    fast: nn.Module, material: Material, objective: Literal["latency", "macs"], *, progress: bool
) -> al.Calibration:
    """The calibration under test."""
    return al.calibrate(
        fast,
        material.splits,
        loss=material.loss,
        max_loss=material.max_loss,
        confidence=CONFIDENCE,
        policies=material.families(fast),
        objective=objective,
        progress=progress,
    )


def judge(model: ZooModel, material: Material, options: argparse.Namespace) -> dict[str, Any]:
    """Calibrate one model and measure the result."""
    fast = int8(model.model)
    result = calibrated(fast, material, options.objective, progress=not options.json)
    result.apply(fast, force=True)  # what loses time must show
    test = served(model, fast, material.test, material)
    fresh = served(model, fast, material.fresh, material)
    binary = material.loss.binary(model.model(material.fresh[0]))
    tested = [p for p in result.frontier if p.p_value is not None]
    return {
        "certified": result.certified,
        "policy": result.certificate.policy,
        "skipped": test.skipped,
        "skipped_recurrent": test.skipped_recurrent,
        "skipped_fresh": fresh.skipped,
        "fallback": test.fallback,
        **timed(model, fast, material.fresh, quick=options.quick),
        "loss": material.loss.name,
        "max_loss": material.max_loss,
        "confidence": CONFIDENCE,
        "loss_test": test.loss,
        "loss_fresh": fresh.loss,
        "fresh_at_least": 1 - risk.upper_bound(1 - fresh.losses, CONFIDENCE, binary=binary),
        "p_value": result.certificate.p_value,
        "sequences": material.sizes,
        "promise": material.promise,
        "objective": options.objective,
        "seconds": result.certificate.seconds,
        "candidates": dict(result.certificate.candidates),
        "frontier": [{k: v for k, v in vars(p).items() if k != "settings"} for p in tested],
    }


def served(model: ZooModel, fast: nn.Module, inputs: Sequence[Tensor], material: Material) -> Served:
    """Inputs through the adapted model, judged by the original."""
    return serve(fast, inputs, [model.model(x) for x in inputs], material.loss)


def timed(model: ZooModel, fast: nn.Module, inputs: Sequence[Tensor], *, quick: bool) -> dict[str, Any]:
    """Share of the int8 model's time that skipping saves, and speed against the adapted float32 model and torch."""
    chosen = inputs[:: max(1, len(inputs) // TIMED)][:TIMED]
    contenders = {
        "torch": model.model,
        "fp32": al.adapt(model.model),
        "int8": int8(model.model),
        "certified": fast,
    }
    calls = {name: _all_of(m, chosen) for name, m in contenders.items()}
    if model.name in GOALS:
        calls |= {"no columns": _all_of(_silent(model.model), chosen)}
        calls |= {"one timestep": _all_of(contenders["int8"], [x[:, :1] for x in chosen])}
    timings = common.race(calls, quick=quick)
    left = ratio(timings["certified"], timings["int8"])
    bounds = {name: 1 - ratio(timings[name], timings["int8"]).median for name in calls if name not in contenders}
    return {
        "saved_at_most": bounds,
        "saved": 1 - left.median if left.meaningful else None,
        "saved_quartiles": [1 - left.p75, 1 - left.p25],
        "speed": {name: asdict(ratio(timings[name], timings["certified"])) for name in ("int8", "fp32", "torch")},
    }


def _silent(model: nn.Module) -> nn.Module:
    """The int8 model with thresholds that nothing exceeds after the first timestep."""
    fast = int8(model)
    for lstm in fast.modules():
        if isinstance(lstm, al.AdaptiveLSTM):
            lstm.policy = al.Delta.uniform(1e6)
    return fast


def _all_of(model: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], None]:
    def run() -> None:
        for x in inputs:
            model(x)

    return run


def goals(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals of a model, the values reached, and the verdicts."""
    given: list[tuple[str, float | None, float]] = []
    if name in RECURRENT_GOALS:
        given.append(("recurrent work skipped", found["skipped_recurrent"], RECURRENT_GOALS[name]))
    if name in GOALS:
        given.append(("work skipped", found["skipped"], GOALS[name]))
        given.append(("time saved", found["saved"], max(GOALS[name], found["skipped"]) - WALL_SLACK))
    return [
        {"goal": goal, "got": got, "least": least, "verdict": "n/a" if got is None else _verdict(got >= least)}
        for goal, got, least in given
    ]


def encoder_in_time(model: ZooModel, material: Material, options: argparse.Namespace) -> dict[str, Any]:
    """How long a calibration of the speaker encoder on 400 windows takes."""
    few = material.thinned(*WINDOWS, fresh=0, max_loss=ENCODER_LIMIT)
    found = calibrated(int8(model.model), few, options.objective, progress=not options.json)
    seconds = found.certificate.seconds
    goal = f"seconds to calibrate on {sum(WINDOWS)} windows"
    return {"goal": goal, "got": seconds, "most": ENCODER_SECONDS, "verdict": _verdict(seconds < ENCODER_SECONDS)}


def _verdict(reached: bool) -> str:
    return "PASS" if reached else "MISS"


def row(name: str, found: dict[str, Any]) -> list[str]:
    """A record as cells of the table."""
    if "failed" in found:
        return [name, "failed", *[""] * 10]
    saved = "n/a" if found["saved"] is None else f"{found['saved']:.0%}"
    speeds = [f"{found['speed'][base]['median']:.2f}x" for base in ("fp32", "torch")]
    kept = "kept" if found["fresh_at_least"] <= found["max_loss"] else "broken"
    return [
        name,
        "yes" if found["certified"] else "no",
        f"{found['skipped']:.0%}",
        f"{found['skipped_recurrent']:.0%}",
        saved,
        *speeds,
        f"{found['max_loss']:g}",
        f"{found['loss_test']:.4f}",
        f"{found['loss_fresh']:.4f} {kept}" if found["certified"] else f"{found['loss_fresh']:.4f}",
        "/".join(str(n) for n in found["sequences"].values()),
        f"{found['seconds']:.0f} s",
    ]


def as_text(found: dict[str, dict[str, Any]]) -> str:
    """Everything as text: the table, the goals, the policies and the promises of their certificates."""
    header = ["model (int8)", "certified", "skipped", "recurrent", "saved", "/ fp32", "/ torch", "limit", "test"]
    header += ["fresh", "fit/search/test/fresh", "calibrated"]
    lines = [common.table("certified policies, one thread, batch 1", header, [row(n, f) for n, f in found.items()])]
    for name, one in found.items():
        for goal in one.get("goals", ()):
            bound = f"at least {goal['least']:.2f}" if "least" in goal else f"less than {goal['most']:g}"
            got = "n/a" if goal["got"] is None else f"{goal['got']:.2f}"
            lines.append(f"{goal['verdict']:4}  {name}: {goal['goal']} {got} ({bound})")
        for what, most in one.get("saved_at_most", {}).items():
            lines.append(f"      {name}: a call of {what} saves {most:.0%}")
    for name, one in found.items():
        line = one.get("failed") or f"{one['policy']}; {one['loss']} at most {one['max_loss']:g}; {one['promise']}"
        line += f" (not all native: {one['fallback']})" if one.get("fallback") else ""
        lines.append(f"\n{name}: {line}")
    return "\n".join(lines)


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, zoo.NAMES)
    parser.add_argument("--objective", choices=("latency", "macs"), default="latency", help="what to reduce")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with common.inference(options.threads):
        common.headline(options)
        for model in zoo.with_material(options.models, options.zoo):
            name, material = model.name, model.prepared(quick=options.quick)
            try:
                one = judge(model, material, options)
                if not options.quick:
                    one["goals"] = goals(name, one)
                    if name == ENCODER:
                        one["goals"].append(encoder_in_time(model, material, options))
            except AdaptiveLSTMError as error:  # of one model; the others still run
                one = {"failed": f"{type(error).__name__}: {error}"}
            found[name] = one
            record = {"group": name, "case": options.objective, **one}
            if options.json:
                print(json.dumps(record))
            common.save(options, "savings", [record])
            torch.manual_seed(0)
    if not options.json:
        print(as_text(found))


if __name__ == "__main__":
    main()
