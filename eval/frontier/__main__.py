"""Quality against time on every model of the zoo: what is the fastest way to run it without making it worse?

``python -m eval.frontier --zoo PATH``: every peer of ``adaptive_lstm.peers``, at the quality that it delivers; ours:
exact, int8 (also of the raw features, in static and dynamic ranges, and with activations of a byte), int8 with the most
sensitive matrices in bfloat16, int8 with delta columns, pruned, and what ``al.calibrate`` certifies. Of each:

- the task figures of the model on its labelled data with the contender inside, and the distance from the original;
- the time of a whole sequence, of the whole model, and of a step of a stream (``time.py``), batch 1.

Then, per model, the fastest peer and the fastest of ours among those of equal quality (``quality.py``),
their ratio, and geometric means over the zoo against the targets. A contender with a wrong result is left out
with the reason; a peer that takes more than SLOW times as long as torch in every use is not judged. Records are saved
model by model; ``--verdicts`` prints saved records and measures nothing.
"""

import argparse
import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from adaptive_lstm.bench import Timing
from adaptive_lstm.peers import Unavailable
from eval import zoo
from eval.frontier.field import NAMES, TORCH, Entry, field
from eval.frontier.quality import Quality, Yardstick
from eval.frontier.time import timed
from eval.frontier.verdict import as_text, detail, verdict
from eval.shared import common
from eval.zoo.base import ZooModel

SLOW = 3.0
RECORDS = "frontier"


def examine(model: ZooModel, chosen: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model, as a record."""
    begun = perf_counter()
    torch.manual_seed(0)
    entries, unavailable = field(model, chosen, options, lambda name: _say(options, f"{model.name}: {name}"))
    _say(options, f"{model.name}: timing")
    timings = timed(model, entries, quick=options.quick)
    yardstick = Yardstick(model, quick=options.quick)
    qualities: dict[str, Quality] = {}
    for entry in entries:
        _say(options, f"{model.name}: quality of {entry.name}")
        if entry.peer and _slow(entry, timings):
            unavailable.append(
                Unavailable(entry.name, f"not judged: more than {SLOW:g} times as long as torch in every use")
            )
            continue
        try:
            qualities[entry.name] = yardstick.judge(entry)
        except Exception as error:
            if not entry.peer:
                raise
            unavailable.append(
                Unavailable(entry.name, f"excluded, it fails: {type(error).__name__}: {error}".splitlines()[0])
            )
    judged = {use: verdict(found, entries, qualities, steps=use == "step") for use, found in timings.items()}
    return {
        "group": model.name,
        "case": _case(options.threads),
        "dense": dict(yardstick.figures),
        "every": yardstick.every,
        "distance": model.distance.name,
        "quality": {name: asdict(quality) for name, quality in qualities.items()},
        "notes": {entry.name: note for entry in entries if (note := _note(entry, timings))},
        "seconds": {use: {n: t.as_dict() for n, t in found.items()} for use, found in timings.items()},
        "verdicts": judged,
        "unavailable": {one.name: one.reason for one in unavailable},
        "took": perf_counter() - begun,
    }


def _note(entry: Entry, timings: Mapping[str, Mapping[str, Timing]]) -> str:
    untimed = [use for use, found in timings.items() if entry.name not in found]
    return "; ".join([*filter(None, [entry.note]), *(f"no {use}: it asks for final states" for use in untimed)])


def _case(threads: int) -> str:
    return f"{threads} thread(s)"


def _slow(entry: Entry, timings: Mapping[str, Mapping[str, Timing]]) -> bool:
    return all(found[entry.name].median > SLOW * found[TORCH].median for found in timings.values())


def _say(options: argparse.Namespace, what: str) -> None:
    if not options.json:
        print(what, file=sys.stderr, flush=True)


def saved(folder: Path, models: Sequence[str], threads: int) -> list[dict[str, Any]]:
    """The records of earlier runs, in the order of the zoo."""
    path = folder / f"{RECORDS}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    found = {record["group"]: record for record in records if record["case"] == _case(threads)}
    return [found[name] for name in models if name in found]


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--zoo", type=Path, help="folder of pretrained models; see eval/zoo")
    parser.add_argument("--models", type=common.one_of(*zoo.NAMES), default=zoo.NAMES, help="default: all")
    parser.add_argument("--contenders", type=common.one_of(*NAMES), default=NAMES, help=f"of {','.join(NAMES)}")
    parser.add_argument("--objective", choices=("latency", "macs"), default="latency", help="of the certified policy")
    parser.add_argument("--verdicts", action="store_true", help="print the tables of saved records, measure nothing")
    options = parser.parse_args(argv)
    if options.verdicts:
        records = saved(options.results, options.models, options.threads)
        if not records:
            parser.error(f"no records for {options.threads} thread(s) in {options.results}")
    elif options.zoo is None:
        parser.error("--zoo is needed to measure; --verdicts reads saved records")
    else:
        records = []
        with common.inference(options.threads):
            common.headline(options)
            for name in zoo.present(options.models, options.zoo):
                records.append(examine(zoo.load(name, options.zoo), options.contenders, options))
                print(json.dumps(records[-1]) if options.json else detail(records[-1]), flush=True)
                common.save(options, RECORDS, [records[-1]])
                gc.collect()  # a model's contenders keep much memory
    if not options.json:
        print(as_text(records))


if __name__ == "__main__":
    main()
