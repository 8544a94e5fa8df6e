"""Native runs of a case, and the reference on the same weights, as outcomes that can be compared."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.nn.utils.rnn import PackedSequence

import adaptive_lstm as al
from adaptive_lstm.execution import reference_cell
from adaptive_lstm.execution.accounting import run_stats
from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.execution.early_exit import ExitLoop
from adaptive_lstm.execution.native_chunks import NativeChunks
from adaptive_lstm.execution.native_stack import cell_of
from adaptive_lstm.execution.reference_runner import ReferenceRunner
from adaptive_lstm.execution.runner import ChunkRunner, PackedRunner, Result, Runner
from adaptive_lstm.execution.split_runner import SplitRunner
from adaptive_lstm.policies import parts
from adaptive_lstm.types import Counts, Route, Site, StreamState, sites

from ..margins import STRENGTH, Explanation, Noise, Run, disturbed, disturbed_cells, explain
from ..outcome import Outcome, counted, differing, leaves, told
from ..script import Script
from ..scripted import scripted
from ..target import Fault, Seen

REFERENCE = Route("reference")


def outcome_of(out: Any, counts: tuple[int, ...] = ()) -> Outcome:
    """What ``nn.LSTM.forward`` returned."""
    y, (h, c) = out
    if not isinstance(y, PackedSequence):
        return Outcome({"y": y, "h": h, "c": c}, counts)
    return Outcome({"y": y.data, "h": h, "c": c}, counts, in_order=y.sorted_indices is None)


class _Counting:
    """Keeps what the last run counted, and of how many timesteps."""

    counts: Counts
    timesteps: int

    def __init__(self, runner: Runner):
        self.runner = runner

    def run(self, batch: Batch) -> Result:
        result = self.runner.run(batch)
        assert result.counts is not None
        self.counts, self.timesteps = result.counts(), batch.timesteps
        return result


FAR = 64  # changes, in multiples of the present size, after which a float estimate is computed anew (run/delta.cpp)


class Reference:
    """The readable executor on the weights, policy and precision of an LSTM.

    Args:
        fast: the LSTM.
        steps: the most timesteps of a run; native float estimates of ``Delta`` round once more at each.
    """

    def __init__(self, fast: al.AdaptiveLSTM, steps: int):
        executor = fast.executor()
        self.fast, self.policy, self.shape, self.tensors = fast, executor.policy, executor.shape, executor.tensors
        self.native: ChunkRunner | None = None if executor.native is None else executor.chunks
        self._rows_stay = executor.policy.time_exit is None  # after an exit the rows of a run are those that are left
        # What a run counts by itself; where nothing is skipped, it says that all was done.
        self.counts = executor.policy.acts or fast.replaced is not None
        self._stream_counts = self.counts or (executor.native is not None and executor.native.finite_only)
        # A float estimate of ``Delta`` rounds at every update, so that it depends on how a sequence is cut. Integers do
        # not.
        self.exact = all(self._integers(site) for site in sites(self.shape) if self.policy.columns.thresholded(site))
        self._strength = STRENGTH if self.exact else STRENGTH * max(steps, FAR)

    def of_cell(self, cell: int) -> Reference:
        """That of one cell alone, where nothing may be left out."""
        stack = self.fast.executor().native
        assert stack is not None
        assert not self.policy.acts
        one = copy.copy(self)
        one.shape, one.tensors, one.policy = self.shape.cell(cell), (self.tensors[cell],), parts(al.Dense())
        one.native = NativeChunks(cell_of(stack, cell))
        return one

    def _integers(self, site: Site) -> bool:
        weights = self.tensors[site.cell]
        return bool(weights.x_levels if site.operand == "x" else weights.h_levels)

    def call(self, x: Any, hx: Any) -> Run:
        """A whole call."""

        def run(script: Script | None, noise: Noise | None = None) -> Outcome:
            with largest_sum() as largest, self._chunks(script, noise) as chunks:
                runner = _Counting(self._whole(chunks))
                with self.fast.run_on(runner):
                    out = self.fast(x, hx)
            counts = runner.counts if self.counts else Counts.dense(self.shape, runner.timesteps)
            outcome = outcome_of(out, self.counted(counts, runner.timesteps))
            in_order = outcome.in_order and self._rows_stay
            return dataclasses.replace(outcome, in_order=in_order, largest_sum=largest[0])

        return run

    def _whole(self, chunks: ReferenceRunner | ExitLoop) -> Runner:
        """Runs whole batches on what runs chunks."""
        whole, split = PackedRunner(chunks), self.policy.split
        if split is None or not isinstance(chunks, ReferenceRunner):
            return whole
        cells = [ReferenceRunner([w], self.shape.cell(k), parts(al.Dense())) for k, w in enumerate(chunks.weights)]
        return SplitRunner(split, self.shape, list(map(PackedRunner, cells)), whole)

    def chunk(self, x: torch.Tensor, state: StreamState, *, open_ended: bool = True) -> Run:
        """A chunk x [T, B, I] from a state; of a stream, or the end of a call."""
        T, B, _ = x.shape

        def run(script: Script | None, noise: Noise | None = None) -> Outcome:
            with largest_sum() as largest, self._chunks(script, noise) as chunks:
                y, end, counts = advanced(chunks, x, state, open_ended=open_ended)
            counts = counts if self._stream_counts else Counts.dense(self.shape, T * B)
            tensors = {"y": y.view(T, B, -1)} | leaves(end)
            return Outcome(tensors, self.counted(counts, T * B), in_order=self._rows_stay, largest_sum=largest[0])

        return run

    def counted(self, counts: Counts, timesteps: int) -> tuple[int, ...]:
        """Counts as numbers."""
        return counted(run_stats(self.policy, self.shape, counts, timesteps, route=REFERENCE, threads=1))

    def _chunks(self, script: Script | None, noise: Noise | None) -> _Open:
        return _Open(self, script, noise, self._strength)


class _Open:
    """A runner under a script, disturbed by noise, while the block lasts."""

    def __init__(self, reference: Reference, script: Script | None, noise: Noise | None, strength: float):
        self.reference, self.script, self.noise, self.strength = reference, script, noise, strength
        self._stack = ExitStack()

    def __enter__(self) -> ReferenceRunner | ExitLoop:
        reference, script, noise, stack = self.reference, self.script, self.noise, self._stack
        stack.enter_context(torch.no_grad())
        policy = reference.policy if script is None else scripted(reference.policy, script)
        weights = reference.tensors if noise is None else disturbed(reference.tensors, self.strength, noise)
        if script is not None:
            stack.enter_context(script.watching())
        if noise is not None:
            stack.enter_context(disturbed_cells(noise))
        runner = ReferenceRunner(weights, reference.shape, policy)
        return runner if policy.time_exit is None else ExitLoop(policy.time_exit, runner)

    def __exit__(self, *error: object) -> None:
        self._stack.close()


@contextmanager
def largest_sum() -> Iterator[list[float]]:
    """Inside, the largest magnitude of a pre-activation of the reference stands in what it gives; NaN is infinite."""
    plain, largest = reference_cell.cell_update, [0.0]

    def update(gates: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if gates.numel():
            largest[0] = max(largest[0], float(gates.abs().nan_to_num(nan=float("inf"), posinf=float("inf")).max()))
        return plain(gates, c)

    with mock.patch.object(reference_cell, "cell_update", update):
        yield largest


def advanced(
    runner: ChunkRunner, x: torch.Tensor, state: StreamState, *, open_ended: bool
) -> tuple[torch.Tensor, StreamState, Counts]:
    """Outputs [T * B, D * P] of a chunk x [T, B, I], the state at its end, and what was counted."""
    T, B, features = x.shape
    run = runner.open(state)
    y = run.advance(x.reshape(-1, features), [B] * T, open_ended=open_ended)
    out = y, run.state(), run.counted(T * B)()
    run.close()
    return out


VACUOUS = 0.1  # a bound of an output, of at most 1 without a projection, that hardly says anything
FEW = 40  # runs of a search that has another way to go


def must_agree(what: str, got: Outcome, run: Run, seen: Seen, follow: Callable[[], Outcome] | None = None) -> bool:
    """Raise ``Fault`` unless a native run agrees with the reference, or its difference is explained.

    Args:
        what: was run, for people.
        got: what it gave.
        run: the reference.
        seen: what is noted.
        follow: does the same natively step by step, each checked against the reference from the state that the native
            run was in; tried where too many decisions differ over the whole run to be found.

    Returns:
        Whether they could be compared: nothing overflowed.
    """
    want = run(None, None)
    if not want.finite:
        seen.covered.append("compared: overflowed")
        return False
    if not differing(got, want):
        seen.covered.append("compared: close")
        return True
    found = explain(got, run) if follow is None else explain(got, run, FEW)
    if found is not None:
        note(found, seen)
    elif follow is None:
        raise Fault(f"{what}: native and reference differ\n{told(got, want)}")
    else:
        followed = follow()
        if differing(got, followed, dict.fromkeys(got.tensors, ZERO)):
            raise Fault(f"{what}: not what the same steps give\n{told(got, followed)}")
        seen.covered.append("compared: step by step")
    return True


ZERO = torch.zeros(())


def followed(reference: Reference, x: torch.Tensor, state: StreamState, seen: Seen, *, open_ended: bool) -> Outcome:
    """x [T, B, I] natively from a state, a step at a time, each checked against the reference."""
    native, total = reference.native, Counts.none(reference.shape)
    assert native is not None
    ys: list[torch.Tensor] = []
    for t in range(len(x)):
        more = open_ended or t < len(x) - 1
        with torch.no_grad():
            y, end, counts = advanced(native, x[t : t + 1], state, open_ended=more)
        got = Outcome({"y": y[None]} | leaves(end), reference.counted(counts, x.shape[1]))
        must_agree("a step", got, reference.chunk(x[t : t + 1], state, open_ended=more), seen)
        ys, state, total = [*ys, y], end, total + counts
    return Outcome({"y": torch.stack(ys)} | leaves(state), reference.counted(total, x.shape[0] * x.shape[1]))


def followed_by_cell(
    reference: Reference, x: torch.Tensor, start: StreamState, seen: Seen
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y, h and c of x [T, B, I] cell by cell, each over time as ``followed`` does: for two directions."""
    ends: list[Outcome] = []
    for layer in range(reference.shape.num_layers):
        ys: list[torch.Tensor] = []
        for direction in range(reference.shape.directions):
            cell = len(ends)
            state = StreamState.start(start.h[cell : cell + 1], start.c[cell : cell + 1])
            one = x.flip(0) if direction else x
            ends.append(followed(reference.of_cell(cell), one, state, seen, open_ended=False))
            y = ends[-1].tensors["y"]
            ys.append(y.flip(0) if direction else y)
        x = torch.cat(ys, -1)
        seen.covered.append(f"followed: layer {layer}")
    h, c = (torch.cat([end.tensors[f"{name}[0]"] for end in ends]) for name in "hc")
    return x, h, c


def note(found: Explanation, seen: Seen) -> None:
    """Write an explanation into the record."""
    widely = found.widest > VACUOUS
    for name, share in found.ties:
        kind = name.split(" x of ")[0].split(" h of ")[0]
        seen.covered.append(f"tie: {kind}")
        seen.largest[f"tie: {kind}"] = max(share, seen.largest.get(f"tie: {kind}", 0.0))
    if not found.ties:
        seen.covered.append("compared: rounding grew" + (" beyond what can be judged" if widely else ""))
    else:
        seen.covered.append("compared: ties" + (", rounding grew beyond what can be judged" if widely else ""))
