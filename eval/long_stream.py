"""Does a stream stay right for ten million steps? Its errors at checkpoints, its counters, and memory.

``python -m eval.long_stream``: random weights, batch 1, one thread; slow inputs with noise, silence and spikes. At
every checkpoint the stream goes on for CHECKED steps beside two others:

reference  the reference executor, which starts from the stream's state: what a step does, however late it is
nn.LSTM    fresh, after a run-up of RUN_UP steps: what a stream that is not old would give

Neither error may grow with the age of the stream. Counters are compared with the steps, and the memory of the process
with that at the first checkpoint.
"""

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.execution import reference
from adaptive_lstm.execution.runner import Chunk
from adaptive_lstm.policies import parts
from adaptive_lstm.weights.precision import Precision
from eval.shared import common

SHAPE = (16, 32, 2)  # inputs, hidden units, layers
STEPS, QUICK_STEPS = 10_000_000, 200_000
CHECKPOINTS = 20
CHUNK = 5_000  # steps of a call; every checkpoint also steps one by one
CHECKED, RUN_UP = 100, 2_000
TABLE = 65_537  # frames after which the waves start again, louder or softer
CASES: dict[str, tuple[Precision, al.Policy]] = {
    "fp32, Delta": ("fp32", al.Delta.uniform(0.05)),
    "int8": ("int8", al.Dense()),
    "int8, Delta": ("int8", al.Delta.uniform(0.05)),
}


@functools.cache
def _table() -> torch.Tensor:
    """Frames [TABLE, I] that are repeated: slow waves and noise, silence, and a spike that has to be forgotten."""
    t, k = torch.arange(TABLE)[:, None], torch.arange(1, SHAPE[0] + 1)
    x = torch.sin(t * k / 97.0 + k) + 0.05 * torch.randn(TABLE, SHAPE[0], generator=torch.Generator().manual_seed(0))
    x[t[:, 0] % 5000 < 500] = 0.0
    x[TABLE // 2] *= 1e4
    return x


def frames(first: int, steps: int) -> torch.Tensor:
    """The inputs of timesteps from ``first`` on: [T, 1, I]; the same whatever the chunk."""
    t = torch.arange(first, first + steps)
    louder = 1 + 0.3 * torch.sin(t.double() / 1e5).float()
    return (_table()[t % TABLE] * louder[:, None])[:, None]


@dataclass
class Check:
    """At one checkpoint: largest differences from the reference and from ``nn.LSTM``, and bytes of the process."""

    reference: float
    fresh: float
    resident: int


def resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def check(lstm: nn.LSTM, fast: al.AdaptiveLSTM, stream: al.Stream, at: int) -> Check:
    """The next CHECKED steps of a stream that has done ``at``, one by one, beside the others."""
    state, x = stream.state, frames(at, CHECKED)
    got = torch.stack([stream.step(frame) for frame in x])
    executor = fast.executor()
    chunk = Chunk(x[:, 0], [1] * CHECKED, state)
    want = reference.run(executor.tensors, executor.shape, parts(fast.policy), chunk)[0]
    before = min(at, RUN_UP)
    fresh = lstm(frames(at - before, before + CHECKED))[0][before:]
    return Check((got[:, 0] - want).abs().max().item(), (got - fresh).abs().max().item(), resident())


def run(name: str, steps: int) -> dict[str, Any]:
    """The record of one case: a stream of so many steps, the last of each of CHECKPOINTS equal parts checked."""
    precision, policy = CASES[name]
    torch.manual_seed(0)
    lstm = nn.LSTM(*SHAPE).eval()
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    fast.quantize, fast.policy = al.Quantize(precision), policy
    checks, begun, done = list[Check](), time.perf_counter(), 0
    with al.stream(fast) as stream:
        for part in range(1, CHECKPOINTS + 1):
            until = steps * part // CHECKPOINTS - CHECKED
            for first in range(done, until, CHUNK):
                stream.run(frames(first, min(CHUNK, until - first)))
            checks.append(check(lstm, fast, stream, until))
            done = until + CHECKED
        stats = stream.stats
    right = all((c.ran, c.advanced, c.h_possible) == (done, done, done * SHAPE[1]) for c in stats.columns)
    early, late = checks[: CHECKPOINTS // 2], checks[CHECKPOINTS // 2 :]
    return {
        "group": "long stream",
        "case": name,
        "steps": done,
        "seconds": time.perf_counter() - begun,
        "activity": stats.activity,
        "counted": right and stats.timesteps == done,
        "reference": [max(c.reference for c in half) for half in (early, late)],
        "fresh": [max(c.fresh for c in half) for half in (early, late)],
        "growth": max(c.resident for c in late) - max(c.resident for c in early),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__)
    options.add_argument("--steps", type=common.positive, help=f"default {STEPS:,}, with --quick {QUICK_STEPS:,}")
    given = options.parse_args(arguments)
    steps = given.steps or (QUICK_STEPS if given.quick else STEPS)
    with common.inference(given.threads):
        common.headline(given)
        records = [run(name, steps) for name in CASES]
        common.save(given, "long_stream", records)
    if given.json:
        print("\n".join(json.dumps(r) for r in records))
    else:
        header = ["stream", "steps", "seconds", "columns sent", "counted", "off the reference", "off nn.LSTM", "memory"]
        print(common.table("Largest errors in the first and the second half", header, map(_cells, records)))


def _cells(r: dict[str, Any]) -> list[object]:
    errors = [" ".join(f"{error:.1e}" for error in r[key]) for key in ("reference", "fresh")]
    counted = "right" if r["counted"] else "WRONG"
    return [r["case"], f"{r['steps']:,}", f"{r['seconds']:.0f}", f"{r['activity']:.0%}", counted, *errors,
            f"{r['growth'] / 1e6:+.1f} MB"]  # fmt: skip


if __name__ == "__main__":
    main()
