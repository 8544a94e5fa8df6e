"""Which executor serves, and the native one behind Python objects.

``ADAPTIVE_LSTM_BACKEND=native|reference`` forces the choice, ``ADAPTIVE_LSTM_ISA=generic|avx2|avx512vnni`` the native
kernels' instruction set. Without the compiled extension the reference executor serves, and says so once.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from .errors import BackendError, NonFiniteError
from .policies import Columns, Delta, Dense, Parts, Site, sites
from .types import ColumnCounts, Counts, StackShape, StreamState
from .weights import Matrix, PairMatrices

if TYPE_CHECKING:
    from . import _native


@dataclass(frozen=True)
class BackendInfo:
    """What executes: ``backend``, its instruction set ``isa``, those usable here, torch's ``threads``, the compiler."""

    backend: Literal["native", "reference"]
    isa: str
    usable_isas: tuple[str, ...]
    threads: int
    compiler: str


@functools.cache
def _load() -> bool:
    """Whether the extension serves; if it should but does not load, with one warning. Holds for the process."""
    wanted = os.environ.get("ADAPTIVE_LSTM_BACKEND", "")
    if wanted not in ("", "native", "reference"):
        raise BackendError(f"ADAPTIVE_LSTM_BACKEND: got {wanted!r}, expected 'native' or 'reference'")
    if wanted == "reference":
        return False
    try:
        from . import _native
    except ImportError as error:
        if wanted == "native":
            raise BackendError(f"ADAPTIVE_LSTM_BACKEND=native, but the extension does not load: {error}") from error
        warnings.warn(
            f"adaptive_lstm: the native extension does not load ({error}); the reference executor serves: exact, "
            "but slow. Reinstall the package where a C++17 compiler is available.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    try:
        _native.isa()
    except RuntimeError as error:
        raise BackendError(str(error)) from error
    return True


def native() -> bool:
    """Whether the native kernels serve."""
    return _load()


def backend_info() -> BackendInfo:
    """What executes on this machine.

    Raises:
        BackendError: an environment variable demands what is not available.
    """
    if not native():
        return BackendInfo("reference", "torch", (), torch.get_num_threads(), "")
    from . import _native

    return BackendInfo("native", _native.isa(), tuple(_native.usable_isas()), torch.get_num_threads(), _native.compiler)


def runs_natively(policy: Parts) -> bool:
    """Whether the native kernels know this policy; others run on the reference executor."""
    return type(policy.columns) in (Delta, Dense) and not policy.holding and not policy.time and not policy.depth


def _packed(matrix: Matrix, columns: bool, gates: bool = True) -> _native.Matrix:
    from . import _native

    if matrix.precision == "fp32":
        return _native.Matrix.f32(matrix.values, gates)
    if matrix.precision == "bf16":
        return _native.Matrix.bf16(matrix.values, gates)
    assert matrix.scale is not None
    if matrix.levels:
        return _native.Matrix.q8(matrix.values, matrix.scale, matrix.levels, columns, matrix.column_scale)
    return _native.Matrix.i8(matrix.values, matrix.scale, gates)


class NativeStack:
    """Packed weights and one policy, ready to run; immutable but for a pool of idle states. Threads may share it."""

    def __init__(self, weights: Sequence[PairMatrices], shape: StackShape, policy: Parts):
        from . import _native

        self.shape = shape
        self.thresholded = {site: policy.columns.thresholded(site) for site in sites(shape)}
        layers, thresholds = [], []
        for pair, w in enumerate(weights):
            x, h = Site(shape, pair, "x"), Site(shape, pair, "h")
            direction = _native.direction(
                _packed(w.w_ih, self.thresholded[x]),
                _packed(w.w_hh, self.thresholded[h]),
                w.bias,
                _packed(w.w_hr, columns=True, gates=False) if w.w_hr else None,
            )
            limits = _native.thresholds(*(self._threshold(policy.columns, site) for site in (x, h)))
            if pair % shape.directions == 0:
                layers.append([direction])
                thresholds.append([limits])
            else:
                layers[-1].append(direction)
                thresholds[-1].append(limits)
        self._plan = _native.Plan(layers)
        self._policy = _native.DeltaPolicy(thresholds)
        self._idle: list[_native.State] = []

    def _threshold(self, policy: Columns, site: Site) -> np.ndarray | None:
        return policy.threshold(site) if isinstance(policy, Delta) and self.thresholded[site] else None

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self._plan.bytes

    def new_state(self, batch: int) -> _native.State:
        """A zero state for ``batch`` rows with nothing sent."""
        from . import _native

        return _native.State(self._plan, self._policy, batch)

    def acquire(self, batch: int) -> _native.State:
        """An idle state, reset, for one run; give it back with ``release``."""
        try:
            state = self._idle.pop()  # atomic, so threads may race for it
        except IndexError:
            return self.new_state(batch)
        state.reset(batch)
        return state

    def release(self, state: _native.State) -> None:
        """Keep a state's buffers for the next run."""
        self._idle.append(state)

    def counts(self, state: _native.State, timesteps: int) -> Counts:
        """What was done since the state's counters were cleared, of ``timesteps`` batch rows times timesteps."""
        shape = self.shape
        return Counts(
            tuple(
                ColumnCounts(x, timesteps * shape.input_width(pair), h, timesteps * shape.output_size, steps, steps)
                for pair, (x, h, steps) in enumerate(state.counters())
            )
        )

    def done(self, state: _native.State) -> torch.Tensor:
        """Rows that have left: bool [B]."""
        return torch.zeros(state.batch, dtype=torch.bool)

    def read(self, state: _native.State, *, started: bool) -> StreamState:
        """A copy of everything that a state remembers; ``started``: whether anything was sent yet."""
        shape, batch = self.shape, state.batch
        h = torch.empty(shape.pairs, batch, shape.output_size, dtype=torch.float32, device="cpu")
        c = h.new_empty(shape.pairs, batch, shape.hidden_size)
        state.store(h.numpy(), c.numpy())

        def sent(site: Site) -> torch.Tensor | None:
            if not (started and self.thresholded[site]):
                return None
            out = h.new_empty(batch, site.width)
            state.store_sent(*divmod(site.pair, shape.directions), site.operand == "h", out.numpy())
            return out

        return StreamState(
            h,
            c,
            tuple(sent(Site(shape, pair, "x")) for pair in range(shape.pairs)),
            tuple(sent(Site(shape, pair, "h")) for pair in range(shape.pairs)),
        )

    def write(self, state: _native.State, value: StreamState) -> None:
        """Put a state where ``value`` says; counters start again."""
        shape = self.shape
        state.reset(value.h.shape[1])
        state.load(_array(value.h), _array(value.c))
        for site in self.thresholded:
            sent = (value.sent_x if site.operand == "x" else value.sent_h)[site.pair]
            if sent is not None:
                state.load_sent(*divmod(site.pair, shape.directions), site.operand == "h", _array(sent))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()


def refuse_non_finite() -> NonFiniteError:
    """The error for NaN or infinity in an input that would poison a persistent state."""
    return NonFiniteError(
        "the input or the given state holds NaN or infinity. A stream or a skip policy would carry it along, and "
        "integers cannot pass it on. Nothing was run. Clean it, for example with torch.nan_to_num."
    )
