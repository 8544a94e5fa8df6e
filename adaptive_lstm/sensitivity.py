"""How strongly a model's output feels each gate row of an LSTM, and what follows for its columns.

F_r = E[(d (v . output) / d gate_r)^2] with v standard normal: by the random projections v this is the diagonal of
J^T J, with J the Jacobian of the output with respect to the gate pre-activations, averaged over time and inputs (the
diagonal Gauss-Newton approximation for a squared error of the output; Martens, "New Insights and Perspectives on the
Natural Gradient Method", JMLR 2020, section 6). From F follows the saliency of a column,
s_j^2 = sum_r F_r^gamma W_rj^2: the damping gamma < 1 matters, because a small F often means a saturated gate, and a
large change leaves the saturation that made it small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .policies import Site
from .types import FloatArray, StackShape


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Output sensitivity of one stack.

    ``rows[pair]`` [4H]: F_r in torch's gate order, in squared units of output per unit of pre-activation;
    ``weights[pair]``: (W_ih [4H, width], W_hh [4H, P]) that it was measured with.
    """

    shape: StackShape
    rows: tuple[npt.NDArray[np.float64], ...]
    weights: tuple[tuple[FloatArray, FloatArray], ...]

    def columns(self, site: Site, gamma: float) -> npt.NDArray[np.float64]:
        """Saliency s_j of every column [C] of an operand's matrix, with s_j^2 = sum_r F_r^gamma W_rj^2."""
        w = self.weights[site.pair][0 if site.operand == "x" else 1].astype(np.float64)
        rows = self.rows[site.pair] ** gamma if gamma else np.ones(len(w))
        return np.asarray(np.sqrt(rows @ w**2))
