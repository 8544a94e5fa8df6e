"""One compiled stack: weights in their precision, a policy, and the runner that was picked for the two."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..policies import Dense, Policy, parts
from ..policies.combined import acts
from ..policies.exits import Exit
from ..types import StackShape, sites
from ..weights.layout import CellTensors
from ..weights.matrices import CellMatrices
from ..weights.precision import Quantize
from ..weights.quantization import quantize_stack
from .early_exit import ExitLoop
from .native_chunks import NativeChunks
from .native_runner import NativeRunner
from .native_stack import NativeStack, cell_of
from .reference_runner import ReferenceRunner
from .reference_weights import dequantized
from .route import between_checks, computed_in, of_exact_call, of_stack
from .runner import ChunkRunner, Converted, ExitableRunner, FiniteOnly, PackedRunner, Runner, Uncounted
from .split_runner import SplitRunner
from .torch_choice import SpeedTrial


class Executor:
    """Picks who runs a stack; free to be shared by threads. Weights are packed when a runner is first asked for.

    ``route``: who runs it, and why.
    ``call_route``: the same for whole batches, which torch runs in place of the reference if results are the same.
    ``dtype``, ``device``, ``on_cpu``: of inputs and outputs.
    ``skips_over_time``: whether most of what it can skip depends on earlier timesteps, which a stream would know.
    ``counts``: whether a run may do less than all of the work, so that what it does is counted.
    ``computes_in``: the dtype of chunks and their states; whole batches are converted.

    Args:
        weights: of every cell.
        shape: sizes of the stack.
        quantize: precision of every matrix.
        policy: what may be left out; must fit the stack (``policy.check``).
        replaced: whether ``weights`` are others than the parameters.
        dtype: of inputs and outputs, where it is not that of ``weights``.
    """

    def __init__(
        self,
        weights: Sequence[CellTensors],
        shape: StackShape,
        quantize: Quantize,
        policy: Policy,
        *,
        replaced: bool = False,
        dtype: torch.dtype | None = None,
    ):
        self.shape, self.policy = shape, parts(policy)
        self._weights, self._quantize = tuple(weights), quantize
        first = self._weights[0].w_ih
        self.dtype, self.device, self.on_cpu = dtype or first.dtype, first.device, first.is_cpu
        policies = self.policy
        over_time = acts(policies.columns) or bool(policies.hold or policies.time_exit)
        self.skips_over_time = over_time and not shape.bidirectional
        self.counts = self.policy.acts or replaced
        # NaN and infinity would stay in estimates, and integers cannot pass them on; without either, torch's results
        # are the same.
        self._finite_only = self.counts or not quantize.exact
        self.route = of_stack(self.dtype, self.device, shape, policy, exact=not self._finite_only)
        self.call_route = self.route if self._finite_only else of_exact_call(self.route, self.dtype)
        self.computes_in = computed_in(self.route, self.dtype)

    @functools.cached_property
    def native(self) -> NativeStack | None:
        """The packed weights if the native core runs everything, else None."""
        if self.route.by != "native":
            return None
        return NativeStack(self._matrices(), self.shape, self.policy, zeros=self._finite_only)

    @property
    def packed(self) -> NativeStack | None:
        """``native``, if the weights have been packed."""
        return vars(self).get("native")

    @functools.cached_property
    def runner(self) -> Runner:
        """Runs whole batches, in ``dtype``."""
        runner: Runner
        if self.native is not None:
            runner = NativeRunner(self.native, counts=self.counts)
        else:
            packed = PackedRunner(self.chunks)
            runner = FiniteOnly(packed) if self._finite_only else packed
            runner = runner if self.counts else Uncounted(runner)
        if self.policy.split is not None:
            runner = FiniteOnly(SplitRunner(self.policy.split, self.shape, self._cells(), runner))
        return runner if self.computes_in is self.dtype else Converted(runner, self.computes_in)

    @functools.cached_property
    def chunks(self) -> ChunkRunner:
        """Runs chunks from a given state, both in ``computes_in``."""
        if self.native is not None:
            return NativeChunks(self.native)
        policy, runner = self.policy, self._between_checks()
        return runner if policy.time_exit is None else ExitLoop(self._told(policy.time_exit), runner)

    def _cells(self) -> list[Runner]:
        """A runner for every cell alone."""
        if self.native is not None:
            return [NativeRunner(cell_of(self.native, k)) for k in range(self.shape.num_cells)]
        dense = parts(Dense())
        return [PackedRunner(ReferenceRunner([w], self.shape.cell(k), dense)) for k, w in enumerate(self.tensors)]

    @functools.cached_property
    def trial(self) -> SpeedTrial | None:
        """Which calls torch serves faster, where its results would be the same; else None."""
        if self.native is None or self.call_route.by != "native" or self._finite_only:
            return None
        return SpeedTrial(self.runner, self.shape, self.native.packed)

    def _between_checks(self) -> ExitableRunner:
        """What runs between two checks of an exit in time: native chunks, or the reference."""
        policy = self.policy
        if self.route.by == "mixed":
            matrices = self._matrices()
            return NativeChunks(NativeStack(matrices, self.shape, between_checks(policy), zeros=self._finite_only))
        if policy.depth_exit is not None:
            policy = replace(policy, depth_exit=self._told(policy.depth_exit))
        return ReferenceRunner(self.tensors, self.shape, policy)

    def _told(self, policy: Any) -> Any:
        """An exit whose head, which may be a module of the model, is given states in the model's dtype."""
        converts = self.computes_in is not self.dtype and isinstance(policy, Exit)
        return policy.with_states_in(self.dtype) if converts else policy

    def threads(self) -> int:
        """How many threads a stream can use: of the native core one, of what torch computes torch's."""
        return 1 if self.route.by == "native" else torch.get_num_threads()

    @functools.cached_property
    def tensors(self) -> tuple[CellTensors, ...]:
        """The weights as the reference executes them: rounded to their precision, in ``computes_in``."""
        if not self._quantize.exact:
            return tuple(dequantized(m, self.computes_in, self.device) for m in self._matrices())
        if all(w.w_ih.dtype is self.computes_in for w in self._weights):
            return self._weights
        like = torch.empty(0, dtype=self.computes_in, device=self.device)
        return tuple(w.to_device(like) for w in self._weights)

    def _matrices(self) -> tuple[CellMatrices, ...]:
        thresholded = [site for site in sites(self.shape) if self.policy.columns.thresholded(site)]
        return quantize_stack(self._weights, self.shape, self._quantize, thresholded)
