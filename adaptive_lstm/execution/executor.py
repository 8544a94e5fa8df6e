"""One compiled stack: weights in their precision, a policy, and the runner that was picked for the two."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from ..policies import Policy, parts
from ..types import StackShape, sites
from ..weights.layout import CellTensors
from ..weights.matrices import CellMatrices
from ..weights.precision import Quantize
from ..weights.quantization import quantize_stack
from .early_exit import ExitLoop
from .native_runner import NativeRunner
from .native_stack import NativeStack
from .reference import ReferenceRunner
from .reference_weights import dequantized
from .route import between_checks, of_exact_call, of_stack
from .runner import ChunkRunner, FiniteOnly, PackedRunner, Runner, Uncounted
from .torch_choice import SpeedTrial


class Executor:
    """Picks who runs a stack; immutable, and free to be shared by threads.

    ``route``: who runs it, and why.
    ``call_route``: the same for whole batches, which torch runs in place of the reference if results are the same.
    ``runner``: runs whole batches.
    ``chunks``: runs chunks from a given state.
    ``native``: the packed weights if the native core runs everything, else None.
    ``trial``: whether torch is faster for a batch, where its results would be the same; else None.
    ``dtype``, ``device``, ``on_cpu``: of inputs and outputs.

    Args:
        weights: of every cell.
        shape: sizes of the stack.
        quantize: precision of every matrix.
        policy: what may be left out; must fit the stack (``policy.check``).
        replaced: whether ``weights`` are others than the parameters.
    """

    def __init__(
        self,
        weights: Sequence[CellTensors],
        shape: StackShape,
        quantize: Quantize,
        policy: Policy,
        *,
        replaced: bool = False,
    ):
        self.shape, self.policy = shape, parts(policy)
        self._weights, self._quantize = tuple(weights), quantize
        first = self._weights[0].w_ih
        self.dtype, self.device, self.on_cpu = first.dtype, first.device, first.is_cpu
        self.route = of_stack(first, shape, policy)
        # NaN and infinity would stay in estimates, and integers cannot pass them on; without either, torch's results
        # are the same.
        skipping = self.policy.acts
        finite_only = skipping or replaced or not quantize.exact
        self.call_route = self.route if finite_only else of_exact_call(self.route)
        self.native: NativeStack | None = None
        self.trial: SpeedTrial | None = None
        self.runner: Runner
        self.chunks: ChunkRunner
        counts = skipping or replaced  # whether a run may do less than all of the work
        if self.route.by == "native":
            self.native = NativeStack(self._matrices(), shape, self.policy, zeros=finite_only)
            self.runner = self.chunks = runner = NativeRunner(self.native, counts=counts)
            self.trial = None if finite_only else SpeedTrial(runner, shape)
            return
        self.chunks = self._in_python(finite_only=finite_only)
        packed = PackedRunner(self.chunks)
        self.runner = FiniteOnly(packed) if finite_only else packed
        if not counts:
            self.runner = Uncounted(self.runner)

    def _in_python(self, *, finite_only: bool) -> ChunkRunner:
        """The reference, or native chunks, and the exit in time around either."""
        runner: ChunkRunner
        if self.route.by == "mixed":
            between = between_checks(self.policy)
            runner = NativeRunner(NativeStack(self._matrices(), self.shape, between, zeros=finite_only))
        else:
            runner = ReferenceRunner(self.tensors, self.shape, self.policy)
        return runner if self.policy.time_exit is None else ExitLoop(self.policy.time_exit, runner)

    def threads(self) -> int:
        """How many threads a run can use: the native core runs on one, what torch computes on torch's."""
        return 1 if self.native is not None else torch.get_num_threads()

    @functools.cached_property
    def tensors(self) -> tuple[CellTensors, ...]:
        """The weights as the reference executes them: rounded to their precision, in ``dtype``; made at first use."""
        if self._quantize.exact:
            return self._weights
        return tuple(dequantized(m, self.dtype, self.device) for m in self._matrices())

    def _matrices(self) -> tuple[CellMatrices, ...]:
        thresholded = [site for site in sites(self.shape) if self.policy.columns.thresholded(site)]
        return quantize_stack(self._weights, self.shape, self._quantize, thresholded)
