"""A sequence and what the portable kernels of the Python runtime make of it, step by step. Needs no torch.

An exported LSTM computes what these kernels compute, bit for bit; kernels with fused products round otherwise. Which
ones a process uses is settled when it starts, so the sequence is run by a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..artifact.stacks import Stack, read_stacks
from ..codec import short_repr
from ..errors import BackendError
from ..execution.native_stack import NativeStack
from ..policies import parts
from ..types import FloatArray

STEPS, SMOOTH = 48, 0.8
PACKAGE = Path(__file__).resolve().parents[1]


@short_repr
@dataclass(frozen=True, eq=False)
class Golden:
    """Inputs, outputs and counts.

    ``x`` [T, I], ``y`` [T, H].
    ``layers`` [L, 4]: columns of x and of h that were computed, steps that ran, steps that advanced.
    ``exits`` [2]: checks in time, and exits; ``depth_checks``, ``depth_exits`` [L]: in depth.
    """

    x: FloatArray
    y: FloatArray
    layers: np.ndarray
    exits: np.ndarray
    depth_checks: np.ndarray
    depth_exits: np.ndarray


def signal(stack: Stack) -> FloatArray:
    """Inputs [STEPS, I] that move a little at most steps, within the ranges that raw features were given."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((STEPS, stack.shape.input_size))
    x = np.zeros_like(noise)
    for t in range(STEPS):
        x[t] = SMOOTH * x[t - 1] + (1 - SMOOTH) * noise[t] if t else noise[t]
    x[STEPS // 3 : STEPS // 2] = x[STEPS // 3]  # and once not at all
    scale = stack.cells[0].w_ih.column_scale
    return (x if scale is None else x * (scale / 2)).astype(np.float32)


def golden(path: Path, name: str, x: FloatArray) -> Golden:
    """Run the stack ``name`` of a file over x [T, I].

    Raises:
        BackendError: the native extension is missing or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "x.npy", Path(folder) / "y.npz"
        np.save(given, x)
        paths = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
        run = subprocess.run(
            [sys.executable, "-m", __name__, str(path), name, str(given), str(made)],
            env=os.environ | {"ADAPTIVE_LSTM_ISA": "generic", "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
        if run.returncode:
            reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
            raise BackendError(f"the golden sequence needs the native extension, which failed: {reason}")
        with np.load(made) as found:
            return Golden(x, *(found[key] for key in ("y", "layers", "exits", "depth_checks", "depth_exits")))


def _run(path: str, name: str, given: str, made: str) -> None:
    stack = read_stacks(path).by_name[name]
    native = NativeStack(stack.cells, stack.shape, parts(stack.settings.policy), zeros=not stack.exact)
    state, x = native.new_state(1), np.load(given)
    y = np.zeros((len(x), stack.shape.output_size), np.float32)
    for t in range(len(x)):
        row = np.ascontiguousarray(x[t])
        assert state.step(row.ctypes.data, y[t].ctypes.data), "the inputs are not finite"
    counts, layers = native.counted(state, len(x))(), stack.shape.num_layers
    np.savez(
        made,
        y=y,
        layers=np.array([(c.x_sent, c.h_sent, c.ran, c.advanced) for c in counts.columns]),
        exits=np.array([counts.exit_checks, counts.exits]),
        depth_checks=np.array(counts.depth_checks or (0,) * layers),
        depth_exits=np.array(counts.depth_exits or (0,) * layers),
    )


if __name__ == "__main__":
    _run(*sys.argv[1:])
