"""How fast this machine runs LSTMs: figures that anyone can send in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import bench
from ..artifact.stacks import Settings, Stack
from ..execution.backend import backend_info
from ..policies import Delta, Dense, Policy
from ..types import FloatArray, StackShape
from ..weights.matrices import CellMatrices
from ..weights.precision import Quantize
from ..weights.quantization import quantize_matrix
from .lstm import LSTM

SHAPES = StackShape(40, 64, 2), StackShape(40, 128, 3), StackShape(40, 256, 3), StackShape(512, 512, 2)
T = 100  # timesteps of a sequence
LEVELS = 127  # of int8 operands
THRESHOLD = 0.05  # of Delta

Setting = tuple[str, Quantize, Policy]
SETTINGS: tuple[Setting, ...] = (
    ("float32", Quantize(), Dense()),
    ("int8", Quantize("int8"), Dense()),
    (f"int8, Delta {THRESHOLD}", Quantize("int8"), Delta.uniform(THRESHOLD)),
)


def measured(lstms: Mapping[str, LSTM], *, repeats: int = 30) -> list[dict[str, Any]]:
    """Steps of one row and sequences of 100 timesteps through each LSTM, one thread, interleaved.

    Args:
        lstms: by name; those of one name's beginning, up to the comma, are timed side by side.
        repeats: rounds.

    Returns:
        A record for each: its name, the median seconds and quartiles of a step (None: it cannot stream) and of a
        timestep of a sequence, and the share of the multiply-accumulates that was computed.
    """
    groups: dict[str, dict[str, LSTM]] = {}
    for name, lstm in lstms.items():
        groups.setdefault(name.split(",")[0], {})[name] = lstm
    return [record for group in groups.values() for record in _side_by_side(group, repeats)]


def machine() -> dict[str, Any]:
    """The machine on which it was measured, and what it could have used."""
    info = backend_info()
    return bench.machine(info) | {"usable_isas": list(info.usable_isas), "compiler": info.compiler}


def samples() -> dict[str, LSTM]:
    """LSTMs of usual sizes with random weights, by size and setting."""
    return {
        f"{shape.num_layers} x {shape.hidden_size}, {name}": _random(shape, quantize, policy)
        for shape in SHAPES
        for name, quantize, policy in SETTINGS
    }


def _side_by_side(lstms: Mapping[str, LSTM], repeats: int) -> Iterator[dict[str, Any]]:
    sequences, steps = dict[str, Callable[[], object]](), dict[str, Callable[[], object]]()
    for name, lstm in lstms.items():
        x = slow_signal(T, lstm.shape.input_size)
        sequences[name] = lambda lstm=lstm, x=x: lstm.run(x)  # type: ignore[misc]
        if not lstm.shape.bidirectional:
            steps[name] = _stepping(lstm, x)
    of_steps = bench.measure(steps, repeats=repeats) if steps else {}
    of_sequences = bench.measure(sequences, repeats=repeats)
    for name, lstm in lstms.items():
        stats = lstm.run(slow_signal(T, lstm.shape.input_size)).stats
        yield {
            "name": name,
            "step": _quartiles(of_steps[name]) if name in of_steps else None,
            "timestep": [seconds / T for seconds in _quartiles(of_sequences[name])],
            "macs": stats.macs / stats.macs_possible,
        }


def _stepping(lstm: LSTM, x: FloatArray) -> Callable[[], object]:
    stream, at = lstm.stream(), 0

    def step() -> object:
        nonlocal at
        at = (at + 1) % T
        return stream.step(x[at : at + 1])

    return step


def _quartiles(timing: bench.Timing) -> list[float]:
    """Median, lower and upper quartile."""
    return [timing.quantile(q) for q in (0.5, 0.25, 0.75)]


def slow_signal(steps: int, width: int) -> FloatArray:
    """Features [steps, width] that drift as those of speech do, so that a part of the columns changes little."""
    noise = np.random.default_rng(0).standard_normal((steps, width))
    out = np.empty_like(noise)
    out[0] = noise[0]
    for t in range(1, steps):
        out[t] = 0.9 * out[t - 1] + 0.44 * noise[t]
    return out.astype(np.float32)


def _random(shape: StackShape, quantize: Quantize, policy: Policy) -> LSTM:
    random, hidden = np.random.default_rng(0), shape.hidden_size

    def array(*size: int) -> FloatArray:
        return random.uniform(-1, 1, size).astype(np.float32) * np.float32(hidden**-0.5)

    cells = []
    for cell in range(shape.num_cells):
        precision = quantize.of(shape, "weight_ih", cell)
        w_ih = quantize_matrix(array(4 * hidden, shape.input_width(cell)), precision, LEVELS)
        w_hh = quantize_matrix(array(4 * hidden, hidden), quantize.precision, LEVELS)
        cells.append(CellMatrices(w_ih, w_hh, array(4 * hidden), None))
    return LSTM(Stack(shape, tuple(cells), Settings(policy, quantize, None)), "a sample")
