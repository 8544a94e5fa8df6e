"""The readable executor: plain torch, any dtype and device, differentiable, every policy. The oracle of all tests.

Equations: torch's ``nn.LSTM`` (and ``proj_size``: Sak et al., arXiv 1402.1128), with every operand replaced by the
estimate that its policy keeps (``policies/delta.py``). Rows are packed as in ``PackedSequence``: all rows of timestep
0, then those of timestep 1, ...; ``sizes[t]`` rows are alive at timestep t, never more than before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .policies import Policy, Site
from .types import ColumnCounts, StackShape, StreamState
from .weights import PairTensors, shape_of, tensors_of


@dataclass(frozen=True)
class Step:
    """What an observer sees of one timestep of one layer and direction; n rows.

    ``x`` [n, width], ``h`` [n, P]: operands before any estimate; ``x_sent``, ``h_sent``: columns computed, bool;
    ``gates`` [n, 4H]: pre-activations in torch order.
    """

    pair: int
    time: int
    x: torch.Tensor
    h: torch.Tensor
    x_sent: torch.Tensor
    h_sent: torch.Tensor
    gates: torch.Tensor


Observer = Callable[[Step], None]


class _Operand:
    """The estimate that one operand of one layer keeps of its values, for all batch rows."""

    def __init__(
        self,
        site: Site,
        policy: Policy,
        levels: int,
        scale: torch.Tensor | None,
        batch: int,
        like: torch.Tensor,
        sent: torch.Tensor | None,
    ):
        self.site, self.policy, self.levels = site, policy, levels
        # Float32 quotients as the native kernels have them; of two tensors, because torch multiplies by the reciprocal
        # of a plain number instead.
        full = like.new_ones(1, dtype=torch.float32) if scale is None else scale
        count = torch.full_like(full, max(levels, 1))
        self.factor, self.step = count / full, full / count
        self.thresholded = policy.thresholded(site)
        self.sent = like.new_zeros(batch, site.width) if sent is None else sent
        self.fresh = torch.full((batch, 1), sent is None, device=like.device)
        self.count = 0

    def estimate(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values to multiply with [n, C] and which columns they were sent for (bool), for the first n rows."""
        n = len(value)
        rounded = value
        if self.levels:
            whole = (value * self.factor).round().clamp(-self.levels, self.levels)
            rounded = (whole * self.step).to(value.dtype)
        if not self.thresholded:
            self.count += value.numel()
            return rounded, torch.ones_like(value, dtype=torch.bool)
        old = self.sent[:n]
        fires = (rounded != old) & (self.fresh[:n] | self.policy.send(self.site, value, old))
        estimate = torch.where(fires, rounded, old)
        self.sent = torch.cat([estimate, self.sent[n:]])
        self.fresh = torch.cat([torch.zeros_like(self.fresh[:n]), self.fresh[n:]])
        self.count += int(fires.sum())
        return estimate, fires


def cell(gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One LSTM cell: pre-activations [n, 4H] and c [n, H] to o * tanh(c') and c'."""
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def run(
    weights: Sequence[PairTensors],
    shape: StackShape,
    policy: Policy,
    x: torch.Tensor,
    sizes: Sequence[int],
    state: StreamState,
    observer: Observer | None = None,
) -> tuple[torch.Tensor, StreamState, tuple[ColumnCounts, ...]]:
    """Run a stack over packed rows.

    Args:
        weights: one entry per layer and direction.
        shape: sizes of the stack.
        policy: what may be left out.
        x: [sum(sizes), I].
        sizes: rows alive at each timestep.
        state: where to start; ``h``, ``c`` [L * D, B, ...] with B = sizes[0]; ``sent_*`` None: nothing sent yet.
        observer: called with every step.

    Returns:
        Output [sum(sizes), D * P], the final state, and the columns sent and possible per layer and direction.
    """
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    h_end, c_end, x_end, h_sent_end = [], [], [], []
    counts = []
    for layer in range(shape.num_layers):
        outputs = []
        for direction in range(shape.directions):
            pair = layer * shape.directions + direction
            w = weights[pair]
            h, c = state.h[pair], state.c[pair]
            of_x = _Operand(Site(shape, pair, "x"), policy, w.x_levels, w.x_scale, len(h), x, state.sent_x[pair])
            of_h = _Operand(Site(shape, pair, "h"), policy, w.h_levels, None, len(h), x, state.sent_h[pair])
            rows: list[torch.Tensor] = [x] * len(sizes)
            times = range(len(sizes))
            for t in reversed(times) if direction else times:
                n = sizes[t]
                z = x[starts[t] : starts[t + 1]]
                x_hat, x_sent = of_x.estimate(z)
                h_hat, h_sent = of_h.estimate(h[:n])
                gates = x_hat @ w.w_ih.T + w.bias + h_hat @ w.w_hh.T
                if observer:
                    observer(Step(pair, t, z, h[:n], x_sent, h_sent, gates))
                out, c_new = cell(gates, c[:n])
                if w.w_hr is not None:
                    out = out @ w.w_hr.T
                h, c = torch.cat([out, h[n:]]), torch.cat([c_new, c[n:]])
                rows[t] = out
            outputs.append(torch.cat(rows))
            h_end.append(h)
            c_end.append(c)
            x_end.append(of_x.sent if of_x.thresholded else None)
            h_sent_end.append(of_h.sent if of_h.thresholded else None)
            steps = starts[-1]
            counts.append(ColumnCounts(of_x.count, steps * of_x.site.width, of_h.count, steps * of_h.site.width))
        x = torch.cat(outputs, dim=1)
    return x, StreamState(torch.stack(h_end), torch.stack(c_end), tuple(x_end), tuple(h_sent_end)), tuple(counts)


def packed_rows(x: torch.Tensor, sizes: torch.Tensor | None, batch_first: bool) -> tuple[torch.Tensor, list[int]]:
    """A batch [T, B, I] or [B, T, I], or rows packed already (``sizes`` [T]), as packed rows and their sizes."""
    if sizes is not None:
        return x, [int(n) for n in sizes]
    x = x.transpose(0, 1) if batch_first else x
    return x.reshape(-1, x.shape[-1]), [x.shape[1]] * x.shape[0]


def unpacked_rows(y: torch.Tensor, x: torch.Tensor, batch_first: bool) -> torch.Tensor:
    """Packed output rows in the layout of the input x that they came from."""
    if x.dim() == 2:
        return y
    if batch_first:
        return y.reshape(x.shape[1], x.shape[0], -1).transpose(0, 1)
    return y.reshape(*x.shape[:2], -1)


def start(shape: StackShape, h: torch.Tensor, c: torch.Tensor) -> StreamState:
    """The state of a new sequence from ``h`` [L * D, B, P] and ``c`` [L * D, B, H]: nothing sent yet."""
    nothing = (None,) * shape.pairs
    return StreamState(h, c, nothing, nothing)


def trace(lstm: nn.LSTM, policy: Policy, x: torch.Tensor) -> list[npt.NDArray[np.bool_]]:
    """Which columns one sequence sends: per layer and direction a bool array [T, width + P], x before h.

    Args:
        lstm: the stack, in its own float precision.
        policy: what may be left out.
        x: [T, I].
    """
    shape = shape_of(lstm)
    sent: list[dict[int, npt.NDArray[np.bool_]]] = [{} for _ in range(shape.pairs)]

    def observe(step: Step) -> None:
        sent[step.pair][step.time] = torch.cat([step.x_sent[0], step.h_sent[0]]).cpu().numpy()

    with torch.no_grad():
        h, c = x.new_zeros(shape.pairs, 1, shape.output_size), x.new_zeros(shape.pairs, 1, shape.hidden_size)
        run(tensors_of(lstm), shape, policy, x, [1] * len(x), start(shape, h, c), observe)
    return [np.stack([steps[t] for t in sorted(steps)]) for steps in sent]
