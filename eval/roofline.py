"""What bounds a step and a sequence? The bytes and multiply-accumulates of a stack against the rates of this machine.

``python -m eval.roofline``: random weights, batch 1, one thread, nothing skipped. Two probes run in the same minutes
(``eval/shared/probes.py``): reading memory, as many bytes as the packed weights have, so that they lie in the same
cache, and multiplying, a float32 matrix product that fits the second-level cache. A streaming step reads all weights
once: its share of the read bandwidth tells how much is left to gain. A whole sequence can reuse the input matrices, but
not the recurrent ones, which every timestep reads again.
"""

import itertools
import json

import torch
from torch import nn

from adaptive_lstm.bench import Timing, format_seconds
from adaptive_lstm.peers import build_adaptive
from eval.shared import common, probes
from eval.shared.contenders import SHAPES, STEPS, Shape


def rows_of(shape: Shape, quick: bool) -> list[dict[str, object]]:
    """One record per precision: bytes, multiply-accumulates, their rates, and those of the probes."""
    inputs, hidden, layers = shape
    lstm = nn.LSTM(inputs, hidden, layers, batch_first=True).eval()
    x = torch.randn(1, STEPS, inputs)
    out: list[dict[str, object]] = []
    for who in (build_adaptive(lstm), build_adaptive(lstm, "int8")):
        size = who.nbytes
        if size is None:
            raise SystemExit("roofline needs the native extension: the reference executor has no packed weights")
        recurrent = size * hidden / (sum(inputs if k == 0 else hidden for k in range(layers)) / layers + hidden)
        calls = {"step": who.stream(x), "whole": who.whole(x), "read": probes.read(size), "mul": probes.multiply()}
        timings = common.race(calls, quick=quick, prime=2, seconds=8)
        macs = 4 * hidden * sum((inputs if k == 0 else hidden) + hidden for k in range(layers))
        out.append(_record(shape, who.name, timings, size, recurrent, macs))
    return out


def _record(
    shape: Shape, who: str, timings: dict[str, Timing], size: int, recurrent: float, macs: int
) -> dict[str, object]:
    read = size / timings["read"].median
    multiply = probes.FLOPS_SIDE**3 / timings["mul"].median
    step, whole = timings["step"].median, timings["whole"].median / STEPS
    return {
        "group": "roofline",
        "case": f"{shape} {who}",
        "megabytes": size / 1e6,
        "read_bandwidth": read,
        "multiply_rate": multiply,
        "step_seconds": step,
        "step_bandwidth": size / step,
        "step_of_bandwidth": size / step / read,
        "whole_step_seconds": whole,
        "whole_of_bandwidth": recurrent / whole / read,
        "whole_of_multiply": macs / whole / multiply,
    }


def main() -> None:
    parser = common.parser(__doc__)
    options = parser.parse_args()
    with common.inference(options.threads):
        common.headline(options)
        records = list(itertools.chain.from_iterable(rows_of(shape, options.quick) for shape in SHAPES))
    if options.json:
        print("\n".join(json.dumps(r) for r in records))
    else:
        header = ["stack", "MB", "core reads", "a step", "of that", "in sequence", "recurrent reads", "of fp32 macs"]
        print(common.table("Roofline, one core", header, [_cells(r) for r in records]))
    common.save(options, "roofline", records)


def _cells(r: dict[str, object]) -> list[object]:
    def number(key: str) -> float:
        value = r[key]
        assert isinstance(value, float)
        return value

    return [
        r["case"],
        f"{number('megabytes'):.1f}",
        f"{number('read_bandwidth') / 1e9:.0f} GB/s",
        format_seconds(number("step_seconds")),
        f"{number('step_of_bandwidth'):.0%}",
        format_seconds(number("whole_step_seconds")),
        f"{number('whole_of_bandwidth'):.0%}",
        f"{number('whole_of_multiply'):.0%}",
    ]


if __name__ == "__main__":
    main()
