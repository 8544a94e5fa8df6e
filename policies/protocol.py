"""The protocols of policies. A class with these methods is a policy; it need not inherit from anything.

There are five decisions, one protocol each: which columns to compute, whether to hold a layer, whether to exit in time,
whether to exit in depth, where to split a sequence in time. A policy makes one of them; ``Combined`` joins policies
that make different ones. Policies hold settings only and never change; what a run remembers is in the run's own state.
A policy written in Python runs on the reference executor; those of this package also run natively. What else the
package knows about a class of policies is in its row, see ``kind``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..types import FloatArray, Site, StackShape
from .change import Change
from .seam import Seam

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Policy(Protocol):
    """Any policy: it can say whether it fits a stack."""

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` or ``UnsupportedError`` if it does not fit. Called before anything runs."""


@runtime_checkable
class ColumnPolicy(Policy, Protocol):
    """Which columns of a layer's two matrices may be skipped at a timestep (``Delta``)."""

    def thresholded(self, site: Site) -> bool:
        """Whether columns of this operand can be skipped at all.

        If not, it is computed densely and ``send`` is never called for it.
        """

    def send(self, site: Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        """Which columns to compute: bool [B, C], from the operand's ``value`` and the values last ``sent`` [B, C].

        Not called at the first step of a sequence, which sends every column that is not zero.
        """


HoldAction = Literal["hold_gates", "hold_state", "queue_input"]
"""What a held layer does: reuse its gate pre-activations while c and h still advance ("hold_gates"), keep c and h
("hold_state"), or keep c and h and queue its inputs, which it replays before it next runs ("queue_input")."""


@runtime_checkable
class HoldPolicy(Policy, Protocol):
    """Whether a layer, and all above it, are held at a timestep (``SkipTimesteps``, ``HoldLayers``)."""

    @property
    def action(self) -> HoldAction:
        """What a held layer does."""

    @property
    def cap(self) -> int:
        """The longest run of held timesteps."""

    def decides(self, shape: StackShape, layer: int) -> bool:
        """Whether this layer decides. A layer that does not follows the nearest one below that does."""

    def should_hold(self, shape: StackShape, cell: int, change: Change) -> torch.Tensor:
        """Which rows to hold: bool [B], from how far the cell's operands have changed since it last ran.

        Not called before the layer has run once.
        """


@runtime_checkable
class TimeExitPolicy(Policy, Protocol):
    """When the rest of a sequence may be skipped (``ExitInTime``)."""

    @property
    def check_every(self) -> int:
        """Timesteps between two checks, which follow timestep ``check_every - 1``, ``2 * check_every - 1``, ..."""

    @property
    def patience(self) -> int:
        """How many consecutive checks must pass."""

    @property
    def window(self) -> int:
        """How many earlier translations ``should_exit`` is given."""

    def translate(self, time: int, h: torch.Tensor) -> torch.Tensor:
        """The predicted final state of the top layer [B, P] after timestep ``time``, from h of all layers [B, L, P]."""

    def should_exit(self, time: int, translation: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """Whether the check passes for this ``translation`` [B, P]: bool [B].

        ``past`` [B, window, P]: the translations of earlier checks, oldest first; NaN before the first.
        """


@runtime_checkable
class DepthExitPolicy(Policy, Protocol):
    """When the layers above may be skipped (``ExitInDepth``)."""

    @property
    def level(self) -> Literal["sequence", "step"]:
        """Whether whole sequences exit, or single timesteps."""

    def checks_after(self, shape: StackShape, layer: int) -> bool:
        """Whether there is a check after this layer."""

    def translate(self, layer: int, h: torch.Tensor, final: bool) -> torch.Tensor:
        """The predicted output of the top layer [n, D * P] from those of layers 0..layer [n, layer + 1, D * P].

        ``final``: of final states (``h_n``) rather than of any timestep.
        """

    def should_exit(self, layer: int, translation: torch.Tensor, below: torch.Tensor | None) -> torch.Tensor:
        """Whether to exit with this ``translation`` [n, D * P]: bool [n].

        ``below``: the translation from one layer less; None after the first layer.
        """


@runtime_checkable
class SplitPolicy(Policy, Protocol):
    """How to split a long sequence into chunks that run side by side (``SplitTime``)."""

    @property
    def chunk(self) -> int:
        """The most timesteps that a chunk has of its own."""

    @property
    def warm_up(self) -> int:
        """Timesteps that a chunk runs before its own."""

    def begin(self, cell: int) -> tuple[FloatArray, FloatArray] | None:
        """h [P] and c [H] from which the chunks of a cell warm up; None: zeros."""

    def strain(self, cell: int, seam: Seam) -> torch.Tensor:
        """How far n chunks are from being run again from the true state [n]: above 1 they are."""


class ColumnScale(Protocol):
    """Saliency of columns: how strongly the output depends on each (``adaptive_lstm.Sensitivity``)."""

    @property
    def shape(self) -> StackShape:
        """The stack that was measured."""

    def columns(self, site: Site, gamma: float) -> npt.NDArray[np.float64]:
        """Saliency s_j of every column [C], with s_j^2 = sum_r F_r^gamma W_rj^2."""


class Curves(Protocol):
    """Activity and residual of the columns of a matrix at a grid of thresholds."""

    def thresholds_at_price(self, price: npt.NDArray[np.float64]) -> FloatArray:
        """Thresholds [C] with the least ``activity + price * residual``; price [C]."""


class ColumnCurves(ColumnScale, Protocol):
    """Saliency, and how often each column would be sent at a grid of thresholds (``adaptive_lstm.Sensitivity``)."""

    def column_curves(self, site: Site) -> Curves:
        """Activity and residual of every column of an operand at the measured thresholds."""
