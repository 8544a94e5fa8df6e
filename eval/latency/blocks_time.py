"""How many rows of a large batch should run together? Part of ``eval.latency``.

Random weights and inputs, 512 sequences, the native core alone, float32 and int8. Times are compared with blocks as the
core chooses them.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from adaptive_lstm.bench import format_seconds, ratio
from adaptive_lstm.peers import build_adaptive
from adaptive_lstm.weights.precision import Precision
from eval.shared.common import race, table
from eval.shared.targets import Result, brief, record

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
BLOCKS = (8, 16, 32, 64, 128, 256, 512)
ROWS = 512


def blocks_time(lstm: nn.LSTM, steps: int, *, quick: bool) -> Iterator[Result]:
    """One case per precision."""
    for precision in PRECISIONS:
        forward = _forward(lstm, precision, steps)
        calls = {"chosen": lambda forward=forward: forward(0)}
        calls |= {f"{block}": lambda forward=forward, block=block: forward(block) for block in BLOCKS}  # type: ignore[misc]
        timings = race(calls, quick=quick, seconds=8)
        case = f"({lstm.input_size}, {lstm.hidden_size}, {lstm.num_layers}) {precision}, {ROWS} rows of {steps} steps"
        rows, speeds = [], []
        for name, timing in timings.items():
            speed = ratio(timings["chosen"], timing)
            speeds.append({"verdict": "n/a", "who": name, "speed": speed.as_dict()})
            rows.append([name, format_seconds(timing.median), brief(speed)])
        yield Result(record("blocks", case, timings, speeds), table(case, ["rows together", "median", "speed"], rows))


def _forward(lstm: nn.LSTM, precision: Precision, steps: int) -> Callable[[int], object]:
    """A run over the same batch with blocks of so many rows."""
    native = build_adaptive(lstm, precision).lstm.executor().native
    assert native is not None, "blocks are rows of the native core"
    inputs, hidden, cells = lstm.input_size, lstm.hidden_size, lstm.num_layers
    x, y = torch.randn(ROWS, steps, inputs), torch.empty(ROWS, steps, hidden)
    h, c = torch.empty(cells, ROWS, hidden), torch.empty(cells, ROWS, hidden)
    state = native.new_state(0)

    def forward(block: int) -> object:
        at = x.data_ptr(), inputs, steps * inputs, y.data_ptr(), hidden, steps * hidden
        return state.forward(ROWS, *at, steps, 0, False, h.data_ptr(), c.data_ptr(), block=block)

    return forward
