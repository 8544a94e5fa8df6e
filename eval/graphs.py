"""Is a compiled model as fast as the model itself? The speaker encoder, batch 1, its own weights and inputs.

``python -m eval.graphs --zoo PATH``: every precision, and lengths from one timestep to a whole input:

eager     ``al.adapt(model)(x)``
compiled  ``torch.compile(al.adapt(model), fullgraph=True)(x)``, which must give the same: int8 bit for bit, and float32
          within CLOSE, because the first calls find out whether torch or the native core serves it

The bar is BAR: eager's time over the compiled model's. It needs a C++ compiler.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds, ratio
from adaptive_lstm.weights.precision import Precision
from eval import zoo
from eval.shared import common
from eval.shared.targets import brief, verdict

BAR = 1.0
CLOSE = 1e-5
MODEL = "resemblyzer"
LENGTHS = (1, 20, 160)
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def examine(model: nn.Module, x: torch.Tensor, name: str, *, quick: bool) -> Iterator[dict[str, Any]]:
    """One record per precision and length; x: [1, T, I].

    Raises:
        RuntimeError: the compiled model gives other outputs, so that nothing is timed.
    """
    for precision in PRECISIONS:
        fast = al.adapt(model)
        for lstm in fast.modules():
            if isinstance(lstm, al.AdaptiveLSTM):
                lstm.quantize = al.Quantize(precision)
        for steps in LENGTHS:
            torch._dynamo.reset()
            compiled, given = torch.compile(fast, fullgraph=True), x[:, :steps].contiguous()
            if not torch.allclose(compiled(given), fast(given), rtol=0, atol=CLOSE if precision == "fp32" else 0):
                raise RuntimeError(f"the compiled {name} is not the model: {precision}, T {steps}")
            calls = {"eager": lambda: fast(given), "compiled": lambda: compiled(given)}  # noqa: B023 (called here)
            timings = common.race(calls, quick=quick, seconds=4)
            speed = ratio(timings["eager"], timings["compiled"])
            yield {
                "group": name,
                "case": f"{precision}, T {steps}",
                "seconds": {who: timing.as_dict() for who, timing in timings.items()},
                "speed": speed.as_dict(),
                "verdict": verdict(speed, BAR),
                "text": brief(speed),
            }


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, (MODEL,), (MODEL,))
    options = parser.parse_args(argv)
    loaded = zoo.load(MODEL, options.zoo)
    with common.inference(options.threads):
        common.headline(options)
        records = list(examine(loaded.model.eval(), loaded.inputs[0], MODEL, quick=options.quick))
    common.save(options, "graphs", records)
    if options.json:
        print("\n".join(map(json.dumps, records)))
        return
    rows = []
    for r in records:
        times = [format_seconds(r["seconds"][who]["median"]) for who in ("eager", "compiled")]
        rows.append([r["case"], *times, r["text"], r["verdict"]])
    print(common.table("A compiled model against the model", ["case", "eager", "compiled", "speed", "verdict"], rows))


if __name__ == "__main__":
    main()
