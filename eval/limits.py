"""What keeps a model from being faster still? Its int8 time, nothing skipped, against the limits of this core.

``python -m eval.limits --zoo PATH``: batch 1, one thread, all LSTMs of a model on its real inputs. Probes run in the
same rounds:

rate  int8 multiply-accumulates a second, of torch's product of two large matrices
read  bytes a second (``eval/shared/probes.py``): of READ bytes, which lie in the second-level cache; for a step, of
      as many bytes as all weights have

The fastest rounds of the probes count, and the medians of the contenders. They give a lower bound of the time of int8
with nothing skipped, as far as these probes are the fastest way to multiply and to read:

whole  the input products at the rate; and for every timestep the longer of the recurrent products at the rate and of
       reading that part of the matrix that exceeds a first-level cache
step   reading all weights

A runtime also needs time for gates, the conversion of activations, the wait of each timestep for the one before, and
the call itself (a sequence of one timestep is timed too). "at the limit" says how many times as fast as torch it would
be if all that took no time: a goal above it needs skipping, or fewer bits.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from adaptive_lstm import peers
from adaptive_lstm.bench import Timing, format_seconds
from eval import zoo
from eval.frontier.field import TORCH, field, lstms_of
from eval.frontier.time import STEPS, TIMED, each, first_steps, stepwise, streams, whole
from eval.shared import common, probes
from eval.zoo.base import ZooModel, spread

READ = 1 << 18  # bytes: eight times a first-level cache, a quarter of a second-level one
NEAREST = 1 << 15  # bytes of a first-level cache
OURS = "int8 bytes"
SECONDS = 10.0


def examine(model: ZooModel, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One record per use of a model."""
    inputs = list(spread(list(model.inputs), min(TIMED, len(model.inputs))))
    reached = peers.inputs_of_lstms(model.model, inputs)
    lstms = lstms_of(model.model)
    (base, ours), _ = field(model, (OURS,), options)
    one = {name: [x[:, :1] for x in sequences] for name, sequences in reached.items()}
    calls = {TORCH: each(base, reached, whole), OURS: each(ours, reached, whole), "call": each(ours, one, whole)}
    found = common.race(
        {**calls, "rate": probes.multiply_int8(), "read": probes.read(READ)}, quick=options.quick, seconds=SECONDS
    )
    rate, read = probes.SIDE**3 / found["rate"].p05, READ / found["read"].p05
    limit = sum(whole_limit(lstm, timesteps(reached[name]), rate, read) for name, lstm in lstms.items())
    records = [_record(model, "whole", found, limit, len(inputs)) | {"rate": rate, "read": read}]
    if streams(model):
        few = {name: first_steps(sequences, STEPS) for name, sequences in reached.items()}
        steps = max(timesteps(sequences) for sequences in few.values())
        size = sum(weights(lstm) for lstm in lstms.values())
        calls = {TORCH: each(base, few, stepwise), OURS: each(ours, few, stepwise), "read": probes.read(size)}
        found = common.race(calls, quick=options.quick, seconds=SECONDS)
        read = size / found["read"].p05
        limit = sum(weights(lstm) * timesteps(few[name]) for name, lstm in lstms.items()) / read
        records.append(_record(model, "step", found, limit, steps) | {"read": read})
    return records


def timesteps(sequences: Sequence[Tensor]) -> int:
    """The timesteps of all sequences [B, T, I] together."""
    return sum(x.shape[0] * x.shape[1] for x in sequences)


def weights(lstm: nn.LSTM) -> int:
    """The number of weights that a timestep multiplies."""
    return sum(w.numel() for name, w in lstm.named_parameters() if name.startswith("weight"))


def whole_limit(lstm: nn.LSTM, steps: int, rate: float, read: float) -> float:
    """The least seconds for so many timesteps of a stack: rate in multiply-accumulates, read in bytes a second."""
    seconds = 0.0
    for name, w in lstm.named_parameters():
        if name.startswith("weight"):
            far = 0 if name.startswith("weight_ih") else max(w.numel() - NEAREST, 0)
            seconds += steps * max(w.numel() / rate, far / read)
    return seconds


def _record(model: ZooModel, use: str, found: Mapping[str, Timing], limit: float, parts: int) -> dict[str, Any]:
    """limit: seconds of everything that was timed, which were so many parts."""
    call = {"call": found["call"].per(parts).as_dict()} if "call" in found else {}
    return {
        "group": model.name,
        "case": use,
        "torch": found[TORCH].per(parts).as_dict(),
        "ours": found[OURS].per(parts).as_dict(),
        "limit": limit / parts,
        "share": limit / found[OURS].median,
        "at the limit": found[TORCH].median / limit,
        **call,
    }


def main() -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, zoo.NAMES)
    options = parser.parse_args()
    rows = []
    with common.inference(options.threads):
        common.headline(options)
        for name in zoo.present(options.models, options.zoo):
            records = examine(zoo.load(name, options.zoo), options)
            common.save(options, "limits", records)
            rows += [_row(record) for record in records]
            if options.json:
                print("\n".join(map(json.dumps, records)), flush=True)
    if not options.json:
        header = ["model", "use", "torch", "int8", "torch / int8", "a call", "limit", "of the time", "torch / limit"]
        print(common.table("int8, nothing skipped, against the limits of the core; batch 1", header, rows))


def _row(record: Mapping[str, Any]) -> list[str]:
    dense, ours = record["torch"]["median"], record["ours"]["median"]
    return [
        record["group"],
        record["case"],
        format_seconds(dense),
        format_seconds(ours),
        f"{dense / ours:.1f}",
        format_seconds(record["call"]["median"]) if "call" in record else "",
        format_seconds(record["limit"]),
        f"{record['share']:.0%}",
        f"{record['at the limit']:.1f}",
    ]


if __name__ == "__main__":
    main()
