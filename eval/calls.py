"""What does a call cost beyond its arithmetic? One sequence, one thread, random weights.

``python -m eval.calls``: for LSTMs exact and in int8, with and without given states, one timestep and more:

call    ``lstm(x)`` or ``lstm(x, (h_0, c_0))``
native  the native core alone, on memory that is there: no tensors, no checks
step    ``stream.step(x)``, for one timestep without given states
torch   ``nn.LSTM`` on the same inputs

What a call adds is the difference of the medians of call and native; the bar is BAR. ``cell`` is the same for
``cell(x, (h_0, c_0))`` beside ``nn.LSTMCell``; what it adds is the difference to the step of a stream with the same
weights, and the bar is CELL_BAR.
``parts`` tells where a floor
lies: what it adds to one timestep of the native core, which has taken the caches, that torch.empty_like makes three
results of these sizes, and that an ``nn.Module`` calls a ``forward`` which does nothing.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds
from adaptive_lstm.weights.precision import Precision
from eval.shared import common

BAR, CELL_BAR = 6e-6, 4e-6
CASES: tuple[tuple[tuple[int, int, int], Precision], ...] = (
    ((16, 16, 1), "fp32"),
    ((16, 16, 1), "int8"),
    ((40, 128, 3), "fp32"),
    ((40, 128, 3), "int8"),
    ((40, 256, 2), "int8"),
)
CELLS: tuple[tuple[int, Precision], ...] = ((128, "fp32"), (128, "int8"), (256, "fp32"), (256, "int8"))
LENGTHS = (1, 10)
PARTS = ("nn.Module", "three results")
Calls = dict[str, Callable[[], object]]


class _Nothing(nn.Module):
    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 (as nn.LSTM)
        return input


def contenders(
    size: tuple[int, int, int], precision: Precision, steps: int, *, states: bool, batch_first: bool
) -> Calls:
    """The calls of one case by name."""
    inputs, hidden, layers = size
    lstm = nn.LSTM(*size, batch_first=batch_first).eval()
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    fast.quantize = al.Quantize(precision)
    x = torch.randn(1, steps, inputs) if batch_first else torch.randn(steps, 1, inputs)
    hx = (torch.rand(layers, 1, hidden), torch.rand(layers, 1, hidden)) if states else None
    calls: Calls = {"call": lambda: fast(x, hx), "native": _native(fast, x, hx, steps)}
    if steps == 1 and hx is None:
        stream, row = al.stream(fast), x[0]
        calls["step"] = lambda: stream.step(row)
    return calls | {"torch": lambda: lstm(x, hx)}


def of_cell(size: int, precision: Precision) -> Calls:
    """One step of a cell by name; I = H = size."""
    cell = nn.LSTMCell(size, size).eval()
    fast = al.AdaptiveLSTMCell.from_cell(cell)
    fast.quantize = al.Quantize(precision)
    x, hx = torch.randn(1, size), (torch.rand(1, size), torch.rand(1, size))
    stream = al.stream(fast.as_lstm)
    calls: Calls = {"call": lambda: fast(x, hx), "native": _native(fast.as_lstm, x, hx, 1)}
    return calls | {"step": lambda: stream.step(x), "torch": lambda: cell(x, hx)}


def _native(fast: al.AdaptiveLSTM, x: torch.Tensor, hx: Any, steps: int) -> Callable[[], object]:
    """The native core on memory that is there."""
    native = fast.executor().native
    assert native is not None, "needs the native core"
    shape = native.shape
    inputs, width, hidden = shape.input_size, shape.output_size, shape.hidden_size
    results = [torch.empty(steps, 1, width), *(torch.empty(shape.num_cells, 1, n) for n in (width, hidden))]
    y, h, c = (result.data_ptr() for result in results)
    args: list[Any] = [1, x.data_ptr(), inputs, inputs, y, width, width, steps, 0, native.finite_only, h, c]
    if hx is not None:
        args += [hx[0].data_ptr(), width, width, hx[1].data_ptr(), hidden, hidden]
    forward, kept = native.new_state(0).forward, (results, x, hx)
    return lambda: (forward(*args), kept)


def parts(size: tuple[int, int, int], precision: Precision) -> Calls:
    """The native core alone, and followed by what no call can do without, or an ``nn.Module`` brings along."""
    inputs, hidden, layers = size
    fast = al.AdaptiveLSTM.from_lstm(nn.LSTM(*size).eval())
    fast.quantize = al.Quantize(precision)
    module, x = _Nothing().eval(), torch.randn(1, 1, inputs)
    y, h = torch.empty(1, 1, hidden), torch.empty(layers, 1, hidden)
    native = _native(fast, x, None, 1)
    return {
        "native": native,
        "nn.Module": lambda: (native(), module(x)),
        "three results": lambda: (native(), torch.empty_like(y), torch.empty_like(h), torch.empty_like(h)),
    }


def examine(*, quick: bool) -> Iterator[dict[str, Any]]:
    """One record per case."""
    for size, precision in CASES:
        for steps in LENGTHS:
            for states in (False, True):
                for batch_first in (False, True):
                    made = contenders(size, precision, steps, states=states, batch_first=batch_first)
                    timings = common.race(made, quick=quick, seconds=1)
                    case = f"{size} {precision}, T {steps}{', given states' if states else ''}"
                    yield {
                        "group": "call",
                        "case": case + (", batch first" if batch_first else ""),
                        "seconds": {who: timing.as_dict() for who, timing in timings.items()},
                        "added": timings["call"].median - timings["native"].median,
                    }
    for width, precision in CELLS:
        timings = common.race(of_cell(width, precision), quick=quick, seconds=1)
        yield {
            "group": "cell",
            "case": f"({width}, {width}) {precision}",
            "seconds": {who: timing.as_dict() for who, timing in timings.items()},
            "added": timings["call"].median - timings["step"].median,
        }
    for size, precision in CASES:
        timings = common.race(parts(size, precision), quick=quick, seconds=1)
        medians = {who: timing.median for who, timing in timings.items()}
        yield {
            "group": "parts",
            "case": f"{size} {precision}",
            "seconds": {who: timing.as_dict() for who, timing in timings.items()},
            "added": {who: median - medians["native"] for who, median in medians.items() if who != "native"},
        }


def main() -> None:
    options = common.parser(__doc__).parse_args()
    with common.inference(options.threads):
        common.headline(options)
        records = list(examine(quick=options.quick))
    common.save(options, "calls", records)
    if options.json:
        print("\n".join(map(json.dumps, records)))
        return
    calls = [r for r in records if r["group"] == "call"]
    names = ("call", "native", "step", "torch")
    rows = [[r["case"], *(_median(r, name) for name in names), format_seconds(r["added"])] for r in calls]
    print(common.table("What a call costs", ["case", *names, "added"], rows))
    cells = [r for r in records if r["group"] == "cell"]
    rows = [[r["case"], *(_median(r, name) for name in names), format_seconds(r["added"])] for r in cells]
    title = f"What a call of a cell costs (bar: {format_seconds(CELL_BAR)})"
    print(common.table(title, ["case", *names, "added"], rows))
    some = [r for r in records if r["group"] == "parts"]
    rows = [[r["case"], *(format_seconds(r["added"][name]) for name in PARTS)] for r in some]
    print(common.table("What parts of a call add to the native core", ["case", *PARTS], rows))
    worst = max(calls, key=lambda r: r["added"])
    above = sum(r["added"] > BAR for r in calls)
    print(f"\nmost is added by {worst['case']}: {format_seconds(worst['added'])}; above {format_seconds(BAR)}: {above}")


def _median(record: dict[str, Any], name: str) -> str:
    return format_seconds(record["seconds"][name]["median"]) if name in record["seconds"] else ""


if __name__ == "__main__":
    main()
