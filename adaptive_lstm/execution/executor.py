"""One compiled stack: weights in their precision, a policy, and the backend that runs the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..policies import Parts, Policy, parts
from ..types import Counts, StackShape, StreamState, sites
from ..weights.layout import CellTensors
from ..weights.precision import Quantize
from ..weights.quantization import quantize_stack
from . import early_exit, reference
from .backend import native, refuse_non_finite
from .native_policy import python_part, runs_natively
from .native_stack import NativeStack
from .reference_weights import dequantized

Counted = Callable[[], Counts]


class Executor:
    """Runs a stack over packed or padded batches; immutable, and free to be shared by threads.

    Args:
        tensors: weights of every layer and direction.
        shape: sizes of the stack.
        quantize: precision of every matrix.
        policy: what may be left out; must fit the stack (``policy.check``).
        replaced: whether ``tensors`` are executed instead of the parameters.
    """

    def __init__(
        self,
        tensors: Sequence[CellTensors],
        shape: StackShape,
        quantize: Quantize,
        policy: Policy,
        *,
        replaced: bool = False,
    ):
        self.shape, self.policy = shape, parts(policy)
        self.width = shape.directions * shape.output_size  # of an output
        self.exact = quantize.exact and not replaced  # whether results are those of the original parameters
        self.skips = self.policy.acts
        first = tensors[0].w_ih
        self.dtype, self.device = first.dtype, first.device
        # Whether NaN and infinity are refused: they would stay in estimates, and integers cannot pass them on.
        self.finite_only = self.skips or not self.exact
        self.counts = self.skips or replaced  # whether a run may do less than all
        self._why, kernel = self._native_part(policy)
        # Quantized weights are kept as numbers whoever runs them.
        self.tensors = tuple(tensors)
        matrices = None
        if not quantize.exact:
            thresholded = [site for site in sites(shape) if self.policy.columns.thresholded(site)]
            matrices = quantize_stack(self.tensors, shape, quantize, thresholded)
            self.tensors = tuple(dequantized(m, self.dtype, self.device) for m in matrices)
        stack = None
        if kernel is not None:
            packed = matrices or quantize_stack(self.tensors, shape, quantize)
            stack = NativeStack(packed, shape, kernel, zeros=self.finite_only)
        self.native = stack if self._why is None else None
        # What runs between two questions of an exit in time that only Python can ask.
        self._between = stack if self._why is not None else None

    def why_not_native(self) -> str | None:
        """Why the reference executor serves, or Python asks between native chunks; None if all is native."""
        return self._why

    def _native_part(self, policy: Policy) -> tuple[str | None, Parts | None]:
        """Why the native core does not run it all, or None, and what of the policy it runs: None for nothing."""
        if self.device.type != "cpu":
            return f"reference: device {self.device.type}", None
        if self.dtype != torch.float32:  # float32 in, float32 out is all that the kernels do
            return f"reference: dtype {str(self.dtype).removeprefix('torch.')}", None
        if not native():
            return "reference: no native extension", None
        if runs_natively(self.policy, self.shape):
            return None, self.policy
        without = replace(self.policy, time_exit=None)
        if runs_natively(without, self.shape):
            return f"asked in Python between native chunks: {python_part(policy)}", without
        return f"reference: {python_part(policy)}", None

    def run(
        self,
        x: torch.Tensor,
        sizes: torch.Tensor | None,
        batch_first: bool,
        initial: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Counted | None]:
        """Run a whole sequence from a fresh start.

        Args:
            x: [T, B, I], [B, T, I] if ``batch_first``, or packed rows [sum(sizes), I].
            sizes: rows alive at each timestep [T], int64, if x is packed, else None.
            batch_first: layout of x and of the output.
            initial: h_0 [L * D, B, P] and c_0 [L * D, B, H], or None: zeros.

        Returns:
            Output in the layout of x, h_n, c_n, and a call for what was counted (None where
            the parameters are executed and nothing can be skipped): adding it up takes as long as a short sequence.

        Raises:
            NonFiniteError: x holds NaN or infinity, and the policy can skip or weights are quantized.
        """
        native = self.native
        if native is None:
            return self._run_reference(x, sizes, batch_first, initial)
        # Short sequences take no longer than what surrounds them here, so that is kept short.
        if sizes is not None:
            steps, batch, timesteps = len(sizes), int(sizes[0]), len(x)
            x, sizes = x.contiguous(), sizes.contiguous()
            y = x.new_empty(timesteps, self.width)
            strides, alive = (0, x.shape[1], y.data_ptr(), 0, self.width), sizes.data_ptr()
        else:
            if x.stride(2) != 1:
                x = x.contiguous()
            outer, inner, _ = x.shape
            timesteps, alive = outer * inner, 0
            y = x.new_empty(outer, inner, self.width)
            if batch_first:
                batch, steps = outer, inner
                strides = (x.stride(1), x.stride(0), y.data_ptr(), self.width, self.width * inner)
            else:
                steps, batch = outer, inner
                strides = (x.stride(0), x.stride(1), y.data_ptr(), self.width * inner, self.width)
        shape = self.shape
        h_n = x.new_empty(shape.num_cells, batch, shape.output_size)
        c_n = x.new_empty(shape.num_cells, batch, shape.hidden_size)
        start = (0, 0)
        if initial is not None:
            initial = initial[0].contiguous(), initial[1].contiguous()
            start = initial[0].data_ptr(), initial[1].data_ptr()
        state = native.acquire(batch)
        try:
            ends = (*start, h_n.data_ptr(), c_n.data_ptr())
            if not state.forward(x.data_ptr(), *strides, steps, alive, self.finite_only, *ends):
                raise refuse_non_finite()
            return y, h_n, c_n, native.counted(state, timesteps) if self.counts else None
        finally:
            native.release(state)

    def _run_reference(
        self,
        x: torch.Tensor,
        sizes: torch.Tensor | None,
        batch_first: bool,
        initial: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Counted | None]:
        if self.finite_only and not bool(torch.isfinite(x).all()):
            raise refuse_non_finite()
        rows, alive = reference.packed_rows(x, sizes, batch_first)
        if initial is None:
            h, c = ((self.shape.num_cells, alive[0], n) for n in (self.shape.output_size, self.shape.hidden_size))
            initial = x.new_zeros(h), x.new_zeros(c)
        y, end, counts = self._through(rows, alive, reference.start(self.shape, *initial), open_ended=False)
        return reference.unpacked_rows(y, x, batch_first), end.h, end.c, (lambda: counts) if self.counts else None

    def advance(self, x: torch.Tensor, state: StreamState) -> tuple[torch.Tensor, StreamState, Counts]:
        """One chunk [T, B, I] of a stream on the reference executor."""
        rows, alive = x.reshape(-1, x.shape[-1]), [x.shape[1]] * len(x)
        y, end, counts = self._through(rows, alive, state, open_ended=True)
        return y.reshape(*x.shape[:2], -1), end, counts

    def _through(
        self, rows: torch.Tensor, alive: Sequence[int], state: StreamState, *, open_ended: bool
    ) -> tuple[torch.Tensor, StreamState, Counts]:
        """Packed rows through the reference executor, or native chunks, and the exit in time around it."""

        def some(
            x: torch.Tensor, sizes: Sequence[int], state: StreamState, first: int
        ) -> tuple[torch.Tensor, StreamState, Counts]:
            if self._between is not None:
                return self._between.run_from(state, x, sizes)
            return reference.run(self.tensors, self.shape, self.policy, x, sizes, state, first=first)

        if self.policy.time_exit is None:
            return some(rows, alive, state, 0)
        return early_exit.run_with_exits(
            self.policy.time_exit, self.shape, some, rows, alive, state, open_ended=open_ended
        )
