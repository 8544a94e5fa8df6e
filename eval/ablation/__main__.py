"""What does every idea contribute? Quality against work, time and bytes, with and without it, on real models.

``python -m eval.ablation --zoo PATH`` builds every variant of ``variants.py`` (thresholds, pruning, precision,
policies, ladder: see there), judges it on held-out sequences, and times it.

- change: root mean square change of its outputs, as a share of their deviation; distance: by the model's own measure;
  loss: the one that a calibration bounds
- done: multiply-accumulates as a share of the original's, including those of the policy, less those of removed
  units and columns; zeros: share of weights; bytes as stored
- whole: how many times as fast as torch, and as the same precision with nothing pruned or skipped, the whole model is,
  sequence by sequence; step: the latter for one streaming step of its LSTM, if it has just one that can stream. Exits
  are left out there: a stream that has exited computes nothing, which is another question

Records are saved one by one.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import Ratio, Timing, ratio
from adaptive_lstm.compression.output_error import outputs, relative_change
from adaptive_lstm.errors import AdaptiveLSTMError
from adaptive_lstm.losses import Loss
from adaptive_lstm.policies import parts
from adaptive_lstm.runtime.adapt import adapted_lstms
from eval import zoo
from eval.ablation.variants import ALONE, Subject, Variant, ladder, policies, precision, pruning, subject, thresholds
from eval.shared import common
from eval.shared.deployed import serve
from eval.shared.targets import brief
from eval.zoo.base import ZooModel, first

Record = dict[str, Any]

MODELS = ("resemblyzer",)
TEST = 200  # sequences
TIMED, STREAMED = 8, 3  # sequences of a timed call
SECONDS = 4.0  # of a race
IDEAS = ("thresholds", "pruning", "precision", "policies", "ladder")


def judge(variant: Variant, of: Subject, dense: Sequence[Any], *, quick: bool) -> Record:
    """The figures of one variant; ``refused`` if the model does not allow it. dense: outputs for the test sequences."""
    try:
        fast = variant.make()
        distances: list[float] = []
        served = serve(fast, of.material.test[: len(dense)], dense, _both(of, distances))
    except AdaptiveLSTMError as error:
        return {"settings": variant.settings, "refused": f"{type(error).__name__}: {error}"}
    report = al.report(fast)
    return {
        "settings": variant.settings,
        "change": relative_change(*(outputs(m, of.material.test[: len(dense)]) for m in (of.model.model, fast))),
        "distance": sum(distances) / len(distances),
        "distance_name": of.model.distance.name,
        "loss": served.loss,
        "loss_name": of.material.loss.name,
        "max_loss": of.material.max_loss,
        "sequences": len(dense),
        "done": 1 - served.skipped,
        "done_recurrent": 1 - served.skipped_recurrent,
        "bytes": report.bytes_after / report.bytes_before,
        "zeros": report.sparsity,
        "fallback": served.fallback,
        **timed(fast, variant.base, of, quick=quick),
    }


def _both(of: Subject, distances: list[float]) -> Loss:
    """The loss of the material, which takes the distance down as well."""

    def both(output: Any, expected: Any, target: Any) -> float:
        distances.append(of.model.distance.between(first(output), first(expected)))
        return of.material.loss.of(output, expected, target)

    return Loss(of.material.loss.name, both)


def timed(fast: nn.Module, base: nn.Module, of: Subject, *, quick: bool) -> Record:
    """Seconds of whole sequences, and of steps where there are any, with ratios paired in the same race."""
    inputs = of.material.test[:: max(1, len(of.material.test) // TIMED)][:TIMED]
    models = {"torch": of.model.model, "base": base, "variant": fast}
    races = {"whole": (_race({name: partial(_whole, m, inputs) for name, m in models.items()}, quick), len(inputs))}
    streamed = {name: _streamed(m, inputs[:STREAMED]) for name, m in (("base", base), ("variant", fast))}
    if all(streamed.values()):
        steps = sum(x.shape[1] for x in inputs[:STREAMED])
        races["step"] = _race({name: call for name, call in streamed.items() if call is not None}, quick), steps
    return {
        "seconds": {
            kind: {name: timing.per(count).as_dict() for name, timing in timings.items()}
            for kind, (timings, count) in races.items()
        },
        "speed": {
            kind: {base: ratio(timings[base], timings["variant"]).as_dict() for base in timings if base != "variant"}
            for kind, (timings, _) in races.items()
        },
    }


def _race(calls: dict[str, Callable[[], object]], quick: bool) -> dict[str, Timing]:
    return common.race(calls, quick=quick, seconds=SECONDS)


def _whole(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    for x in inputs:
        model(x)


def _streamed(model: nn.Module, inputs: Sequence[Tensor]) -> Callable[[], None] | None:
    """A call that streams the inputs that reach the LSTM of the model, or None if it cannot be streamed."""
    lstms = list(adapted_lstms(model).values())
    if len(lstms) != 1 or lstms[0].bidirectional:
        return None
    (lstm,) = lstms
    if parts(lstm.policy).time_exit is not None or parts(lstm.policy).depth_exit is not None:
        return None
    given: list[Tensor] = []
    hook = lstm.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    _whole(model, inputs)
    hook.remove()
    time = 1 if lstm.batch_first else 0
    frames = [[step.contiguous() for step in x.unbind(time)] for x in given]
    stream = al.stream(lstm)

    def run() -> None:
        for sequence in frames:
            stream.reset()
            for frame in sequence:
                stream.step(frame)

    return run


def ablated(model: ZooModel, ideas: Sequence[str], *, quick: bool) -> Iterator[Record]:
    """The record of every variant of every idea, one by one."""
    of = subject(model, quick=quick)
    with torch.no_grad():
        dense = [model.model(x) for x in of.material.test[:TEST]]
    judged: dict[str, Record] = {}

    def boldest(alone: Sequence[Variant]) -> list[Variant]:
        """Of every family the variant with the least work that keeps its share of the limit."""
        found: dict[str, Variant] = {}
        for variant in alone:
            one = judged[variant.name]
            assert variant.candidate is not None
            (family,) = variant.candidate.families
            good = "refused" not in one and one["loss"] <= ALONE * of.material.max_loss and one["done"] < 1
            if good and (family not in found or one["done"] < judged[found[family].name]["done"]):
                found[family] = variant
        return list(found.values())

    all_of: dict[str, Callable[[Subject], Iterator[Variant]]] = {
        "thresholds": thresholds,
        "pruning": pruning,
        "precision": precision,
        "policies": partial(policies, boldest=boldest),
        "ladder": ladder,
    }
    for idea in ideas:
        for variant in all_of[idea](of):
            judged[variant.name] = judge(variant, of, dense, quick=quick)
            named = {"group": idea, "case": f"{model.name}: {variant.name}", "model": model.name}
            yield {**named, "variant": variant.name, **judged[variant.name]}


def row(record: Record) -> list[str]:
    """A record as cells of the table."""
    if "refused" in record:
        return [record["variant"], "refused", *[""] * (len(HEADER) - 2)]

    def speed(kind: str, against: str) -> str:
        found = record["speed"].get(kind, {}).get(against)
        if found is None:
            return ""
        return brief(Ratio(found["median"], found["p25"], found["p75"], found["rounds"])) if found["median"] else "n/a"

    return [
        record["variant"],
        f"{record['change']:.4f}",
        f"{record['distance']:.4f}",
        f"{record['loss']:.4f}",
        f"{record['done']:.0%}",
        f"{record['zeros']:.0%}",
        f"{record['bytes']:.0%}",
        speed("whole", "torch"),
        speed("whole", "base"),
        speed("step", "base"),
    ]


HEADER = [
    "variant",
    "change",
    "distance",
    "loss",
    "done",
    "zeros",
    "bytes",
    "whole / torch",
    "whole / base",
    "step / base",
]


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, MODELS)
    parser.add_argument("--only", type=common.one_of(*IDEAS), default=IDEAS, help="ideas, comma-separated")
    options = parser.parse_args(argv)
    with common.inference(options.threads):
        common.headline(options)
        for model in zoo.with_material(options.models, options.zoo):
            run(model, options)


def run(model: ZooModel, options: argparse.Namespace) -> None:
    """Judge one model, print and save."""
    rows: dict[str, list[list[str]]] = {idea: [] for idea in options.only}
    for record in ablated(model, options.only, quick=options.quick):
        common.save(options, "ablation", [record])
        rows[record["group"]].append(row(record))
        if options.json:
            print(json.dumps(record), flush=True)
    if not options.json:
        for idea, lines in rows.items():
            print(common.table(f"{model.name}: {idea} ({model.distance.name})", HEADER, lines), flush=True)


if __name__ == "__main__":
    main()
