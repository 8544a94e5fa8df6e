"""What does a certified policy save on real models, and is its promise kept on fresh sequences?

``python -m eval.savings --zoo PATH`` adapts every model of the zoo, compresses it to int8, and lets ``al.calibrate``
search all policies that apply, for whole sequences and, where the model serves streams, for streams. Then, with the
certified policy:

- saved: time against the same int8 model with nothing skipped, batch 1, on fresh sequences, which the calibration never
  saw: of the whole model, or of its LSTMs frame by frame; and how many times as fast it is as the adapted float32
  model and, on whole sequences, as torch;
- skipped: share of the multiply-accumulates of all LSTMs (including those of the policy itself) that were left out
  on the test split, and of the recurrent matrices alone;
- loss against the original model on the test split and on fresh sequences. 'broken' means that the fresh ones
  contradict the limit (one-sided test at 0.95), not that a sample lies above it by chance.

A run that was broken off goes on with ``--resume``: models with a record of the present commit are left out.

The table is followed by the kind of sequence that the certificate of each model covers; see ``eval/zoo/material.py``.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import ratio
from adaptive_lstm.calibration import risk
from adaptive_lstm.calibration.calibrate import Point
from adaptive_lstm.calibration.workload import Use, workload
from adaptive_lstm.cli.demo.run import int8
from adaptive_lstm.errors import AdaptiveLSTMError
from eval import zoo
from eval.shared import common
from eval.shared.deployed import Served, serve
from eval.zoo.base import ZooModel
from eval.zoo.material import Material

CONFIDENCE = 0.95
TIMED = 12  # fresh sequences per timed call
USES: tuple[Use, ...] = ("sequence", "stream")
STREAMED = ("resemblyzer", "beatnet", "charrnn", "textgenrnn", "pjm", "fsdd-speakers", "silero")  # serve streams
ENCODER, WINDOWS, ENCODER_SECONDS = "resemblyzer", (100, 100, 200), 300.0
ENCODER_LIMIT = 0.02  # of that timed calibration: 200 windows certify nothing stricter
LEAST = 0.98  # times as fast as with nothing skipped, of every model and use
GOALS: Mapping[tuple[str, Use], float] = {
    ("fsdd-speakers", "sequence"): 2.0,
    ("fsdd-digits", "sequence"): 1.25,
    (ENCODER, "stream"): 2.0,
}  # the same of some
LEAST_OF_STREAMS = 1.5  # geometric mean over all streams
REAL, REAL_LEAST = ("pyannote", "resemblyzer", "chemnet", "arabic", "nnsplit", "turbofan"), 1.15  # three reach this


def calibrated(
    fast: nn.Module,
    material: Material,
    objective: Literal["latency", "macs"],
    use: Use = "sequence",
    *,
    progress: bool,
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
        use=use,
        progress=progress,
    )


def judge(model: ZooModel, material: Material, use: Use, options: argparse.Namespace) -> dict[str, Any]:
    """Calibrate one model and measure the result."""
    fast = int8(model.model)
    result = calibrated(fast, material, options.objective, use, progress=not options.json)
    result.apply(fast, force=True)  # what loses time must show
    test = served(model, fast, material.test, material)
    fresh = served(model, fast, material.fresh, material)
    binary = material.loss.binary(model.model(material.fresh[0]))
    considered = [p for p in result.frontier if p.p_value is not None or p.time is not None]
    return {
        "certified": result.certified,
        "policy": result.certificate.policy,
        "use": use,
        "skipped": test.skipped,
        "skipped_recurrent": test.skipped_recurrent,
        "skipped_fresh": fresh.skipped,
        "fallback": test.fallback,
        **timed(model, fast, material.fresh, use, quick=options.quick),
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
        "finalists": result.certificate.finalists,
        "more": result.certificate.more,
        "frontier": [_plain(point) for point in considered],
    }


def _plain(point: Point) -> dict[str, Any]:
    fields = {name: value for name, value in vars(point).items() if name != "settings"}
    return fields | {"time": point.time and point.time.as_dict()}


def served(model: ZooModel, fast: nn.Module, inputs: Sequence[Tensor], material: Material) -> Served:
    """Inputs through the adapted model, judged by the original."""
    return serve(fast, inputs, [model.model(x) for x in inputs], material.loss)


def timed(model: ZooModel, fast: nn.Module, inputs: Sequence[Tensor], use: Use, *, quick: bool) -> dict[str, Any]:
    """Share of the int8 model's time that skipping saves, and speed against the adapted float32 model and torch.

    The int8 model with nothing skipped and the skipping one take turns alone, as the calibration timed them: float32
    weights between their turns would take the caches from both, and a cold call hides what is skipped.
    """
    chosen = inputs[:: max(1, len(inputs) // TIMED)][:TIMED]
    dense = int8(model.model)
    work = workload(dense, chosen, use)
    certified = work(fast)
    pair = common.race({"int8": work(dense), "certified": certified}, quick=quick)
    others = {"fp32": work(al.adapt(model.model))}
    if use == "sequence":
        others["torch"] = _all_of(model.model, chosen)
    beside = common.race({**others, "certified": certified}, quick=quick)
    left = ratio(pair["certified"], pair["int8"])
    speed = {"int8": ratio(pair["int8"], pair["certified"])}
    speed |= {name: ratio(beside[name], beside["certified"]) for name in others}
    return {
        "saved": 1 - left.median if left.meaningful else None,
        "saved_quartiles": [1 - left.p75, 1 - left.p25],
        "speed": {name: asdict(one) for name, one in speed.items()},
    }


def _all_of(model: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], None]:
    def run() -> None:
        for x in inputs:
            model(x)

    return run


def goals(name: str, use: Use, found: dict[str, Any]) -> list[dict[str, Any]]:
    """How fast a model is to be against int8 that skips nothing, how fast it is, and the verdict."""
    least, saved = GOALS.get((name, use), LEAST), found["saved"]
    got = None if saved is None else 1 / (1 - saved)
    # Too noisy to tell, or the quartiles disagree.
    unclear = got is None or got < least <= 1 / (1 - found["saved_quartiles"][1])
    verdict = "n/a" if unclear else _verdict((got or 0) >= least)
    return [{"goal": f"times as fast ({use})", "got": got, "least": least, "verdict": verdict}]


def encoder_in_time(model: ZooModel, material: Material, options: argparse.Namespace) -> dict[str, Any]:
    """How long a calibration of the speaker encoder on 400 windows takes."""
    few = material.thinned(*WINDOWS, fresh=0, max_loss=ENCODER_LIMIT)
    found = calibrated(int8(model.model), few, options.objective, progress=not options.json)
    seconds = found.certificate.seconds
    goal = f"seconds to calibrate on {sum(WINDOWS)} windows"
    return {"goal": goal, "got": seconds, "most": ENCODER_SECONDS, "verdict": _verdict(seconds < ENCODER_SECONDS)}


def _verdict(reached: bool) -> str:
    return "PASS" if reached else "MISS"


def bound(goal: Mapping[str, Any]) -> str:
    """What a goal asks for, in words."""
    return f"at least {goal['least']:.2f}" if "least" in goal else f"less than {goal['most']:g}"


def row(name: str, found: dict[str, Any]) -> list[str]:
    """A record as cells of the table."""
    if "failed" in found:
        return [name, "failed", *[""] * 10]
    saved = "n/a" if found["saved"] is None else f"{found['saved']:.0%}"
    speed = found["speed"]
    speeds = [f"{speed[base]['median']:.2f}x" if base in speed else "" for base in ("fp32", "torch")]
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
            got = "n/a" if goal["got"] is None else f"{goal['got']:.2f}"
            lines.append(f"{goal['verdict']:4}  {name}: {goal['goal']} {got} ({bound(goal)})")
    for name, one in found.items():
        line = one.get("failed") or f"{one['policy']}; {one['loss']} at most {one['max_loss']:g}; {one['promise']}"
        line += f" (not all native: {one['fallback']})" if one.get("fallback") else ""
        lines.append(f"\n{name}: {line}")
    return "\n".join(lines)


def case(options: argparse.Namespace, use: Use) -> str:
    """Of a record: what was to be saved, and how the model is used if not in whole sequences."""
    return str(options.objective) if use == "sequence" else f"{options.objective}, {use}"


def runs(options: argparse.Namespace) -> Iterable[tuple[ZooModel, Material, Use]]:
    """What is to be calibrated; with ``--resume`` only what this commit has no record of."""
    done = common.recorded(options.results, "savings") if options.resume else frozenset()
    for model in zoo.with_material(options.models, options.zoo):
        uses = [use for use in options.uses if use == "sequence" or model.name.startswith(STREAMED)]
        missing = [use for use in uses if (model.name, case(options, use)) not in done]
        if missing:
            material = model.prepared(quick=options.quick)
            yield from ((model, material, use) for use in missing)


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, zoo.NAMES)
    parser.add_argument("--objective", choices=("latency", "macs"), default="latency", help="what to reduce")
    parser.add_argument("--uses", type=common.one_of(*USES), default=USES, help=f"default: {','.join(USES)}")
    parser.add_argument("--resume", action="store_true", help="leave out what has a record of the present commit")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with common.inference(options.threads):
        common.headline(options)
        for model, material, use in runs(options):
            try:
                one = judge(model, material, use, options)
                if not options.quick:
                    one["goals"] = goals(model.name, use, one)
                    if (model.name, use) == (ENCODER, "sequence"):
                        one["goals"].append(encoder_in_time(model, material, options))
            except AdaptiveLSTMError as error:  # of one model; the others still run
                one = {"failed": f"{type(error).__name__}: {error}"}
            found[f"{model.name}, {use}"] = one
            record = {"group": model.name, "case": case(options, use), **one}
            if options.json:
                print(json.dumps(record))
            common.save(options, "savings", [record])
            torch.manual_seed(0)
    if not options.json:
        print(as_text(found))


if __name__ == "__main__":
    main()
