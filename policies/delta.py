"""Delta columns: compute a column only when its input or hidden value has changed since it was last sent.

The delta network of Neil et al., "Delta Networks for Optimized Recurrent Network Computation" (ICML 2017), with one
threshold per column. With x̂ and ĥ the values last sent, the pre-activations are exactly those of the estimate,
M = b + W_ih x̂ + W_hh ĥ, so errors do not accumulate. Thresholds of 0 are the dense computation; a tiny one such as
1e-9 skips exact repeats only, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from ..codec import brief, short_repr
from ..errors import PolicyError
from ..types import FloatArray, Site, StackShape, sites
from .kind import PolicyKind
from .native_form import NativeColumns
from .protocol import ColumnCurves, ColumnScale
from .sweep import FitData, Settings, Sweep

if TYPE_CHECKING:
    import torch

    from .family import Family

Entry = float | tuple[float, ...] | None
"""Thresholds of one operand of one layer: a number for all its columns, one per column, or None: never skip."""


def _entry(value: float | npt.ArrayLike | None, where: str) -> Entry:
    if value is None:
        return None
    if type(value) is float and 0 <= value <= 1e38:  # most of what a long list holds
        return float(np.float32(value))
    try:
        with np.errstate(over="ignore"):  # beyond float32: infinity, which is never exceeded either
            array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise PolicyError(f"{where}: got {brief(value)}, expected a number, one value per column, or None") from None
    if array.ndim > 1:
        raise PolicyError(f"{where}: got thresholds of shape {array.shape}, expected a number or one value per column")
    if not np.all(array >= 0):  # also catches NaN
        worst = array[~(array >= 0)].flat[0]
        raise PolicyError(f"{where}: got a threshold of {worst}, expected values >= 0 (0 never skips)")
    return float(array) if array.ndim == 0 else tuple(float(v) for v in array)


@short_repr
@dataclass(frozen=True, kw_only=True)
class Delta:
    """Send column j when ``|value_j - sent_j| > threshold_j``; ``Delta()`` never skips.

    Args:
        h: thresholds of the recurrent columns: a number for all layers, or a sequence with one entry per
            cell (in the order of ``h_n``), each a number, an array [P], or None: never skip.
        x: the same for the input columns ([I] for the first layer, [D * P] above). A number holds for every layer but
            the first, whose raw features have an unknown scale and few columns; a sequence may name them too.

    Raises:
        PolicyError: a threshold is negative or NaN, or has more than one dimension.
    """

    h: float | tuple[Entry, ...] | None = None
    x: float | tuple[Entry, ...] | None = None

    kind: ClassVar[PolicyKind]

    def __post_init__(self) -> None:
        for name, value in (("h", self.h), ("x", self.x)):
            parts: object
            if isinstance(value, tuple | list):
                parts = tuple(_entry(v, f"{name}[{i}]") for i, v in enumerate(value))
            elif isinstance(parts := _entry(value, name), tuple):
                raise PolicyError(f"{name}: got one array, expected a number or a sequence with one entry per layer")
            object.__setattr__(self, name, parts)

    @classmethod
    def uniform(cls, threshold: float | None) -> Delta:
        """One threshold for all hidden columns: the recurrent ones, and the input columns above the first layer.

        The first layer's raw features have an unknown scale and are always computed.

        Args:
            threshold: in units of h (-1..1); 0 never skips.

        Raises:
            PolicyError: the threshold is negative, NaN or no number.
        """
        return cls(h=threshold, x=threshold)

    @classmethod
    def scaled(cls, sensitivity: ColumnScale, tau: float, *, gamma: float = 0.5, power: float = 1.0) -> Delta:
        """Thresholds in inverse proportion to how strongly the output depends on a column.

        ``threshold_j = tau * (mean(s) / s_j) ** power`` with s_j^2 = sum_r F_r^gamma W_rj^2, the mean over all
        thresholded columns of the stack. The first layer's raw input columns are always computed.

        Args:
            sensitivity: from ``measure_sensitivity``.
            tau: scale of the thresholds, in units of h (-1..1); 0 never skips.
            gamma: damping of the output sensitivity F_r; 0 uses column norms alone.
            power: how strongly thresholds follow the saliency; 0 gives one global threshold ``tau``.

        Raises:
            PolicyError: tau is negative or not finite, or gamma or power is not finite.
        """
        if not (np.isfinite(tau) and tau >= 0):
            raise PolicyError(f"tau: got {tau}, expected a finite number >= 0")
        if not (np.isfinite(gamma) and np.isfinite(power)):
            raise PolicyError(f"gamma and power: got {gamma} and {power}, expected finite numbers")
        saliency = {site: sensitivity.columns(site, gamma) for site in sites(sensitivity.shape) if not site.raw}
        mean = float(np.mean(np.concatenate(list(saliency.values()))))
        # A column that the output does not depend on gets a large but finite threshold.
        floor = 1e-6 * mean if mean > 0 else 1.0
        scaled = {site: tau * (mean / np.maximum(s, floor)) ** power for site, s in saliency.items()}
        return cls._of_sites(sensitivity.shape, scaled)

    @classmethod
    def priced(cls, sensitivity: ColumnCurves, price: float, *, gamma: float = 0.5, raw: bool = False) -> Delta:
        """Thresholds by price: a column that the output depends on less is sent less often.

        Every column takes the measured threshold of least ``A_j + price * u_j * R_j``: A_j how often it is sent,
        R_j the mean squared residual, u_j = s_j^2 / mean(s^2) with s_j^2 = sum_r F_r^gamma W_rj^2, the mean over all
        columns but the raw features. A lower price never adds work, as far as the measured curves tell.

        Args:
            sensitivity: from ``measure_sensitivity``.
            price: what a squared residual of 1 in a column of mean u costs, in column updates per step; 1 to
                100,000 are typical. The higher, the more exact; with no limit, everything that changes is sent.
            gamma: damping of the output sensitivity F_r; 0 uses column norms alone.
            raw: choose thresholds for the first layer's raw input columns too; they are always computed otherwise.

        Raises:
            PolicyError: price is negative or not finite, or gamma is not finite.
        """
        if not (np.isfinite(price) and price >= 0):
            raise PolicyError(f"price: got {price}, expected a finite number >= 0; Dense() loses nothing")
        if not np.isfinite(gamma):
            raise PolicyError(f"gamma: got {gamma}, expected a finite number")
        squares = {site: sensitivity.columns(site, gamma) ** 2 for site in sites(sensitivity.shape)}
        mean = float(np.mean(np.concatenate([s for site, s in squares.items() if not site.raw]))) or 1.0
        chosen = {
            site: sensitivity.column_curves(site).thresholds_at_price(price * s / mean)
            for site, s in squares.items()
            if raw or not site.raw
        }
        return cls._of_sites(sensitivity.shape, chosen)

    @classmethod
    def _of_sites(cls, shape: StackShape, thresholds: Mapping[Site, npt.ArrayLike]) -> Delta:
        """Thresholds by operand; operands without any are always computed."""
        entries = [_entry(thresholds.get(site), str(site)) for site in sites(shape)]
        return cls(x=tuple(entries[::2]), h=tuple(entries[1::2]))  # x before h, cell by cell

    def threshold(self, site: Site) -> FloatArray | None:
        """Thresholds [C] of an operand, or None if it is never skipped.

        Raises:
            PolicyError: the thresholds do not fit the operand.
        """
        spec = self.h if site.operand == "h" else self.x
        if isinstance(spec, tuple):
            if len(spec) != site.shape.num_cells:
                raise PolicyError(
                    f"{site.operand}: got thresholds for {len(spec)} layers, expected {site.shape.num_cells} "
                    "(one per layer and direction); a policy belongs to the model that it was made for"
                )
            entry = spec[site.cell]
        else:
            entry = None if site.raw else spec
        if entry is None:
            return None
        if isinstance(entry, tuple) and len(entry) != site.width:
            raise PolicyError(
                f"{site}: got {len(entry)} thresholds, expected {site.width} (one per column); "
                "a policy belongs to the model that it was made for"
            )
        return np.broadcast_to(np.asarray(entry, dtype=np.float32), (site.width,)).copy()

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` if the thresholds do not fit the stack."""
        for site in sites(shape):
            self.threshold(site)

    def thresholded(self, site: Site) -> bool:
        """Whether a threshold of this operand is above zero; zeros are computed densely, which is the same result."""
        threshold = self.threshold(site)
        return threshold is not None and bool(threshold.any())

    def send(self, site: Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        """Columns whose value has changed by more than their threshold: bool [B, C]."""
        import torch

        threshold = torch.as_tensor(self.threshold(site), dtype=value.dtype, device=value.device)
        return (value - sent).abs() > threshold


_TAU = (0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.35)
_PRICE = (1e5, 3e4, 1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0)


def _sweeps(family: Family, fit: FitData) -> Iterator[Sweep]:
    del family  # all of its settings are searched

    def scaled(gamma: float, power: float) -> Callable[[float], Settings]:
        return lambda tau: {n: Delta.scaled(s, tau, gamma=gamma, power=power) for n, s in fit.sensitivities.items()}

    def priced(gamma: float, raw: bool) -> Callable[[float], Settings]:
        return lambda price: {n: Delta.priced(s, price, gamma=gamma, raw=raw) for n, s in fit.sensitivities.items()}

    yield Sweep("delta", "delta(one threshold)", _TAU, scaled(0, 0))
    for gamma, power in ((0.0, 1.0), (0.5, 1.0), (0.75, 1.0), (1.0, 0.5)):
        yield Sweep("delta", f"delta(gamma={gamma:g}, power={power:g})", _TAU, scaled(gamma, power))
    for gamma, raw in ((0.0, False), (0.5, False), (0.5, True)):
        label = f"delta(priced, gamma={gamma:g}{', raw' if raw else ''})"
        yield Sweep("delta", label, _PRICE, priced(gamma, raw))


def _native(policy: Delta, shape: StackShape) -> NativeColumns:
    limits = [policy.threshold(site) if policy.thresholded(site) else None for site in sites(shape)]
    return NativeColumns(tuple(zip(limits[::2], limits[1::2], strict=True)))  # x before h, cell by cell


Delta.kind = PolicyKind(
    name="Delta",
    decision="columns",
    searched=("h", "x"),
    sweeps=_sweeps,
    needs=frozenset({"sensitivity"}),
    native=_native,
)
