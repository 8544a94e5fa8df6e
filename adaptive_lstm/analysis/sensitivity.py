"""Result of a calibration pass over an LSTM: the sensitivity of the output, and statistics of the operands.

F_r = E[(d (v . output) / d gate_r)^2] with v standard normal: by the random projections v this is the diagonal of
J^T J, with J the Jacobian of the output with respect to the gate pre-activations, averaged over time and inputs (the
diagonal Gauss-Newton approximation for a squared error of the output; Martens, "New Insights and Perspectives on the
Natural Gradient Method", JMLR 2020, section 6). From F follows the saliency of a column,
s_j^2 = sum_r F_r^gamma W_rj^2: the damping gamma < 1 matters, because a small F often means a saturated gate, and a
large change leaves the saturation that made it small.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from .. import codec, tensorfile
from ..codec import brief, is_number, is_whole, short_repr
from ..errors import InputError, ModelFileError
from ..files import FilePath
from ..policies import Delta
from ..types import FloatArray, Site, StackShape, sites
from .delta_curves import Curves

_KIND, _VERSION, _UNSIGNED = "sensitivity", 2, 1


@short_repr
@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Output sensitivity of one stack, and the statistics of its operands z = [x ; h] in the dense run.

    All tuples have one entry per cell; C = width + P columns, x before h.

    ``shape``: sizes of the stack.
    ``steps``: timesteps, summed over sequences, that the averages are taken over.
    ``rows[cell]`` [4H]: F_r in torch's gate order, in squared units of output per unit of pre-activation.
    ``weights[cell]``: (W_ih [4H, width], W_hh [4H, P]) that it was measured with.
    ``moments[cell]`` [C, C]: E[z z^T].
    ``means[cell]`` [C]: E[z].
    ``curves[cell]``: activity and residual of the C columns as functions of their delta thresholds.
    """

    shape: StackShape
    steps: int
    rows: tuple[npt.NDArray[np.float64], ...]
    weights: tuple[tuple[FloatArray, FloatArray], ...]
    moments: tuple[npt.NDArray[np.float64], ...]
    means: tuple[npt.NDArray[np.float64], ...]
    curves: tuple[Curves, ...]

    def columns(self, site: Site, gamma: float) -> npt.NDArray[np.float64]:
        """Saliency s_j of every column [C] of an operand's matrix, with s_j^2 = sum_r F_r^gamma W_rj^2."""
        self._check_site(site)
        if not (is_number(gamma) and 0 <= gamma <= 1):
            raise InputError(f"gamma: got {brief(gamma)}, expected a number from 0 to 1")
        w = self.weights[site.cell][0 if site.operand == "x" else 1].astype(np.float64)
        rows = self.rows[site.cell] ** gamma if gamma else np.ones(len(w))
        return np.asarray(np.sqrt(rows @ w**2))

    def column_curves(self, site: Site) -> Curves:
        """Activity and residual of every column of an operand at the measured thresholds."""
        self._check_site(site)
        width = self.shape.input_width(site.cell)
        return self.curves[site.cell].part(slice(None, width) if site.operand == "x" else slice(width, None))

    def _check_site(self, site: object) -> None:
        """Raise ``InputError`` unless it is an operand of the stack."""
        cells = range(self.shape.num_cells)
        if not (isinstance(site, Site) and is_whole(site.cell) and site.cell in cells and site.operand in ("x", "h")):
            raise InputError(f"site: got {brief(site)}, expected a Site(shape, cell, operand) with a cell in {cells}")

    def activity(self, policy: Delta) -> float:
        """The share of columns that a policy is expected to compute, as in ``RunStats.activity``.

        An estimate from the dense run; between the measured thresholds it is interpolated.

        Raises:
            InputError: it is no ``Delta``.
            PolicyError: the policy does not fit the stack.
        """
        if not isinstance(policy, Delta):
            raise InputError(f"policy: got {brief(policy)}, expected a Delta")
        sent, possible = 0.0, 0
        for site in sites(self.shape):
            threshold = policy.threshold(site)
            possible += site.width
            if threshold is None or not policy.thresholded(site):
                sent += site.width
            else:
                sent += float(self.column_curves(site).activity_at(threshold).sum())
        return sent / possible

    # ---------------------------------------------------------------------------------------------------- files

    def save(self, path: FilePath) -> None:
        """Write a safetensors file at once; after a failure the old one is still there.

        Raises:
            ModelFileError: the file cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        for cell, curves in enumerate(self.curves):
            values: dict[str, np.ndarray] = {
                "rows": self.rows[cell],
                "w_ih": self.weights[cell][0],
                "w_hh": self.weights[cell][1],
                "moments": self.moments[cell],
                "means": self.means[cell],
                "thresholds": curves.thresholds,
                "activity": curves.activity,
                "residual": curves.residual,
            }
            arrays |= {f"{name}.{cell}": array for name, array in values.items()}
        tensorfile.write(path, _KIND, _VERSION, {"shape": asdict(self.shape), "steps": self.steps}, arrays)

    @classmethod
    def load(cls, path: FilePath) -> Sensitivity:
        """Read what ``save`` has written.

        Raises:
            ModelFileError: missing, damaged, altered, no such file, or written by a newer version.
        """
        header, arrays = tensorfile.read(path, _KIND, _VERSION, unsigned=_UNSIGNED)
        try:
            said = codec.mapping(header, "header", ("shape", "steps"))
            given = codec.with_defaults(StackShape, said["shape"], "shape")
            shape: StackShape = codec.decode(StackShape, given, "shape", codec.Arrays({}))
            steps = said["steps"]
            if type(steps) is not int or steps < 1:
                raise codec.unexpected(steps, "steps", "a whole number from 1")
            _check(shape, arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{os.fsdecode(path)} is damaged: {type(error).__name__}: {error}") from error
        cells = range(shape.num_cells)

        def each(name: str) -> tuple[np.ndarray, ...]:
            return tuple(arrays[f"{name}.{cell}"] for cell in cells)

        return cls(
            shape=shape,
            steps=steps,
            rows=each("rows"),
            weights=tuple(zip(each("w_ih"), each("w_hh"), strict=True)),
            moments=each("moments"),
            means=each("means"),
            curves=tuple(map(Curves, each("thresholds"), each("activity"), each("residual"))),
        )


def _check(shape: StackShape, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ``ValueError`` or ``KeyError`` if the arrays of a file are not those of the shape in its header."""
    if min(shape.input_size, shape.hidden_size, shape.num_layers) < 1 or not 0 <= shape.proj_size < shape.hidden_size:
        raise ValueError(f"got {shape}, which no LSTM has")
    expected: dict[str, tuple[tuple[int, ...], str]] = {}
    for cell in range(shape.num_cells):
        gates, width, output = 4 * shape.hidden_size, shape.input_width(cell), shape.output_size
        c, k = width + output, len(arrays[f"thresholds.{cell}"])
        sizes = {"rows": (gates,), "moments": (c, c), "means": (c,), "activity": (k, c), "residual": (k, c)}
        expected |= {f"{name}.{cell}": (size, "float64") for name, size in sizes.items()}
        floats = {"w_ih": (gates, width), "w_hh": (gates, output), "thresholds": (k, c)}
        expected |= {f"{name}.{cell}": (size, "float32") for name, size in floats.items()}
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    if found != expected:
        name = min(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise ValueError(f"{name}: got {found.get(name)}, expected {expected.get(name)}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: it holds NaN or infinity, expected finite numbers")
